"""Figure 8 and its L2 version: features of three kinds of SAE at matched L0, at three lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Panel
from tiltmeter.reports.charts.curves import quantity
from tiltmeter.reports.charts.styles import styles
from tiltmeter.studies.comparisons import compared_at_nearest
from tiltmeter.studies.estimands import readout_name, step_index
from tiltmeter.studies.lee2024.estimands import here
from tiltmeter.studies.lee2024.estimands_saes import matched
from tiltmeter.studies.lee2024.experiments import BASELINES
from tiltmeter.studies.lee2024.figures.wording import LENGTHS, TITLE
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.results import Results, saes_by_kind
from tiltmeter.studies.study import PaperFigure

BAR_LENGTHS = (21.0, 41.0, 61.0)
"""Lengths of the paper's bars: 20, 40 and 61 by its caption, 21, 41 and 61 on the grid of its code."""


def _matched_features(curves: xr.Dataset) -> list[str]:
    """Features of the SAE of each kind whose L0 is nearest to the paper's."""
    return [f"sae-feature:{matched(curves, kind)}" for kind in saes_by_kind(curves)]


def _chart(readout: str) -> Callable[[Results], Chart]:
    """A panel for each of three lengths."""

    def chart(results: Results) -> Chart:
        curves, table = results["features"], results.table("features")
        name, directions = readout_name(curves, readout), [*BASELINES, *_matched_features(curves)]
        panels = (_bars_at(curves, table, name, directions, here(curves, length)) for length in BAR_LENGTHS)
        return Chart((tuple(panels),), share=("x",))

    return chart


def _bars_at(curves: xr.Dataset, table: pd.DataFrame, readout: str, names: Sequence[str], length: float) -> Panel:
    step = float(curves.step[step_index(curves, length)])
    rows = table[(table.readout == readout) & (table.step == step)].set_index("direction")
    style_of = styles([str(name) for name in curves.direction.values])
    marks = []
    for name in names:
        y, low, high = (np.array([float(rows.loc[name, column])]) for column in ("mean", "low", "high"))
        marks.append(Bars(name, (name,), y, style_of[name], low, high))
    return Panel(f"length {step:.1f}", Axis(""), Axis(quantity(curves, table, readout)), tuple(marks))


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


def _figure(number: str, end: str, readout: str, claimed: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: features of three kinds of SAE{end}",
        caption="Features of the SAEs with the L0 nearest to 30, and the baselines, at the paper's lengths 21, 41 "
        "and 61. Whiskers: 95 % intervals over sequences.",
        claimed=claimed,
        needs=("features",),
        chart=_chart(readout),
        finding=_finding(readout),
    )


FIGURE_8 = _figure(
    "8",
    "",
    "kl",
    "Features of local SAEs generally induce the greatest change among SAEs, those of e2e SAEs the least; the gap "
    "between local and e2e+ds SAEs shrinks with length.",
)
FIGURE_8_L2 = _figure("L2-8", ", L2", "l2", "Local SAEs generally exhibit the greatest change.")
