"""Figures 5, 6 and 7 and their L2 versions: mean curves along errors and features of SAEs, by kind and sparsity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from tiltmeter.reports.charts.chart import Chart, Line, Panel
from tiltmeter.reports.charts.curves import facets
from tiltmeter.reports.tables.format import three_digits
from tiltmeter.studies.comparisons import TOGETHER, at_nearest, difference, means_at_nearest, too_few, verb
from tiltmeter.studies.estimands import readout_name
from tiltmeter.studies.lee2024.estimands import here
from tiltmeter.studies.lee2024.experiments import BASELINES
from tiltmeter.studies.lee2024.figures.wording import KL, L2, LENGTHS, SCALED, TITLE
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.results import Results, saes_by_kind
from tiltmeter.studies.study import PaperFigure

CLOSE_UP = 0.45
"""Fraction of the path that the close-up shows: the paper's reach of 61 of 101, less the spike of end-to-end SAEs."""


def _chart(experiment: str, readout: str, direction: str, baselines: Sequence[str]) -> Callable[[Results], Chart]:
    """A column for each kind of SAE: a curve for each sparsity, and the baselines."""

    def chart(results: Results) -> Chart:
        curves = results[experiment]
        groups = {
            kind: (*baselines, *(f"{direction}:{sae}" for sae in saes)) for kind, saes in saes_by_kind(curves).items()
        }
        return facets(curves, results.table(experiment), [readout_name(curves, readout)], groups)

    return chart


def _close_up(readout: str) -> Callable[[Results], Chart]:
    """The beginning of the curves along errors, each column with its own axis."""
    whole = _chart("errors", readout, "sae-error", ("isotropic",))

    def chart(results: Results) -> Chart:
        full = whole(results)
        reach = CLOSE_UP * float(results["errors"].step.max())
        panels = tuple(_cut(panel, reach) for panel in full.rows[0])
        return replace(full, rows=(panels,), share=())

    return chart


def _cut(panel: Panel, reach: float) -> Panel:
    marks = [mark for mark in panel.marks if isinstance(mark, Line)]
    near = np.concatenate([mark.y[mark.x <= reach] for mark in marks])
    highest = float(near[np.isfinite(near)].max(initial=0.0)) or 1.0
    return replace(
        panel, x=replace(panel.x, limits=(0.0, reach)), y=replace(panel.y, limits=(-0.03 * highest, 1.08 * highest))
    )


def _finding(
    other: str, experiment: str, direction: str, readout: str, lengths: Sequence[float] = LENGTHS
) -> Callable[[Results], str]:
    """Each SAE's direction compared with a baseline, by kind of SAE."""

    def finding(results: Results) -> str:
        curves = results[experiment]
        if few := too_few(curves):
            return few
        wanted = (curves, readout_name(curves, readout), direction, other, len(lengths))
        return " ".join([*(_by_kind_at_nearest(*wanted, here(curves, length)) for length in lengths), TOGETHER])

    return finding


def _by_kind_at_nearest(
    curves: xr.Dataset, readout: str, direction: str, other: str, comparisons: int, length: float
) -> str:
    """Compare each SAE's direction with a baseline at the nearest measured step, which the sentence states."""
    values = at_nearest(curves[readout], length)
    kinds = saes_by_kind(curves)
    level = 1 - 0.05 / (comparisons * sum(map(len, kinds.values())))
    parts = []
    for kind, saes in kinds.items():
        names = [f"{direction}:{sae}" for sae in saes]
        verbs = [verb(*difference(values, (name, other), level)) for name in names]
        counts = ", ".join(f"{verbs.count(one)} {one.removesuffix(' from')}" for one in dict.fromkeys(verbs))
        numbers = ", ".join(three_digits(float(values.sel(direction=name).mean())) for name in names)
        parts.append(f"{kind} {counts} ({numbers})")
    return (
        f"At length {float(values.step):.3g} (mean {values.attrs['long_name']}: "
        f"{means_at_nearest(curves, readout, BASELINES, length)}), "
        f"{direction} compared with {other}, sparsest SAE first: "
        f"{'; '.join(parts)}."
    )


def _errors(number: str, end: str, readout: str, quantity: str, claimed: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: errors of SAEs{end}",
        caption=f"{quantity} along SAE errors, SAE(x) - x: a column for each kind of SAE, a curve for each sparsity "
        f"(darker: higher L0), with the paper's baselines. {SCALED}",
        claimed=claimed,
        needs=("errors",),
        chart=_chart("errors", readout, "sae-error", BASELINES),
        finding=_finding("cov-random-mixture", "errors", "sae-error", readout),
    )


def _errors_close_up(number: str, whole: str, end: str, readout: str, claimed: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: errors of SAEs, close up{end}",
        caption=f"The beginning of {figure(whole)}, each column with its own axis. {SCALED}",
        claimed=claimed,
        needs=("errors",),
        chart=_close_up(readout),
        finding=_finding("isotropic", "errors", "sae-error", readout, (21.0, 41.0)),
    )


def _features(number: str, end: str, readout: str, quantity: str, claimed: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: features of SAEs{end}",
        caption=f"{quantity} along decoder rows of latents that are alive but not active in the sequence: a column "
        f"for each kind of SAE, a curve for each sparsity (darker: higher L0), with the paper's baselines. {SCALED}",
        claimed=claimed,
        needs=("features",),
        chart=_chart("features", readout, "sae-feature", BASELINES),
        finding=_finding("cov-random-mixture", "features", "sae-feature", readout),
    )


FIGURE_5 = _errors(
    "5",
    "",
    "kl",
    KL,
    "A plateau, then a more linear increase. Local SAEs: close to the cov-random mixture, lower L0 above. End-to-end "
    "SAEs: low up to about 50, then a spike; above 70 lower L0 is above, below 50 the opposite.",
)
FIGURE_6 = _errors_close_up(
    "6",
    "5",
    "",
    "kl",
    "At small lengths errors of end-to-end SAEs have little effect, and the lower the L0 the less (the paper's next "
    "sentence says the reverse).",
)
FIGURE_7 = _features(
    "7",
    "",
    "kl",
    KL,
    "All features are above isotropic directions; lower L0 means a greater change, for all kinds of SAE.",
)
FIGURE_5_L2 = _errors("L2-5", ", L2", "l2", L2, "")
FIGURE_6_L2 = _errors_close_up("L2-6", "L2-5", ", L2", "l2", "")
FIGURE_7_L2 = _features("L2-7", ", L2", "l2", L2, "")
