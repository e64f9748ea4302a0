"""Figure 8 and its L2 version: features of three kinds of SAE at matched L0, at three lengths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from tiltmeter.reports.charts.chart import Axis, Chart, Dots, Panel
from tiltmeter.reports.charts.styles import styles
from tiltmeter.studies.comparisons import compared_at_nearest
from tiltmeter.studies.estimands import readout_name, step_index
from tiltmeter.studies.lee2024.estimands import here
from tiltmeter.studies.lee2024.estimands_saes import matched
from tiltmeter.studies.lee2024.experiments import BASELINES
from tiltmeter.studies.lee2024.figures.ratio_curves import AT_ONE, ISOTROPIC, ratio_axis, ratio_to_isotropic
from tiltmeter.studies.lee2024.figures.wording import LENGTHS, TITLE
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.results import Results, saes_by_kind
from tiltmeter.studies.study import PaperFigure

DRAWN_LENGTHS = (21.0, 41.0, 61.0)
"""Lengths of the paper's figure: 20, 40 and 61 by its caption, 21, 41 and 61 on the grid of its code."""


def _matched_features(curves: xr.Dataset) -> list[str]:
    """Features of the SAE of each kind whose L0 is nearest to the paper's."""
    return [f"sae-feature:{matched(curves, kind)}" for kind in saes_by_kind(curves)]


def _chart(readout: str) -> Callable[[Results], Chart]:
    """A panel for each of three lengths, with the ratio to isotropic directions of each of the others."""

    def chart(results: Results) -> Chart:
        curves = results["features"]
        name = readout_name(curves, readout)
        panels = (_panel_at(results, name, here(curves, length)) for length in DRAWN_LENGTHS)
        return Chart((tuple(panels),), share=("x", "y"))

    return chart


def _panel_at(results: Results, readout: str, length: float) -> Panel:
    curves = results["features"]
    step = float(curves.step[step_index(curves, length)])
    style_of = styles([str(name) for name in curves.direction.values])
    marks = []
    for name in [*(one for one in BASELINES if one != ISOTROPIC), *_matched_features(curves)]:
        one = ratio_to_isotropic(results, "features", readout, name, step)
        y, low, high = (np.array([number]) for number in (one.value, one.low, one.high))
        marks.append(Dots(name, (name,), y, style_of[name], low, high))
    return Panel(f"length {step:.1f}", Axis(""), ratio_axis(readout), (*marks, AT_ONE))


def _finding(readout: str) -> Callable[[Results], str]:
    """Each kind of SAE compared with the others and with the cov-random mixture."""

    def finding(results: Results) -> str:
        curves = results["features"]
        names = _matched_features(curves)
        pairs = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
        pairs += [(one, "cov-random-mixture") for one in names]
        return compared_at_nearest(
            curves, readout_name(curves, readout), pairs, [here(curves, length) for length in LENGTHS]
        )

    return finding


def _figure(number: str, end: str, readout: str, what: str, claimed: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: features of three kinds of SAE{end}",
        caption=f"{what} along features of the SAEs with the L0 nearest to 30, and along the paper's baselines, "
        "divided by that along isotropic directions, at the paper's lengths 21, 41 and 61, scaled. Ratios are of "
        "means, paired by sequence. Whiskers: 95 % intervals over sequences.",
        claimed=claimed,
        needs=("features",),
        chart=_chart(readout),
        finding=_finding(readout),
    )


FIGURE_8 = _figure(
    "8",
    "",
    "kl",
    "Mean KL(clean ‖ perturbed)",
    "Features of local SAEs generally induce the greatest change among SAEs, those of e2e SAEs the least; the gap "
    "between local and e2e+ds SAEs shrinks with length.",
)
FIGURE_8_L2 = _figure(
    "L2-8",
    ", L2",
    "l2",
    "Mean L2 distance after the last block",
    "Local SAEs generally exhibit the greatest change.",
)
