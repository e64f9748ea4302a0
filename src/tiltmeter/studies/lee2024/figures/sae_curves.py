"""Figures 5, 6 and 7 and their L2 versions: mean curves along errors and features of SAEs, by kind and sparsity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import xarray as xr

from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel
from tiltmeter.reports.charts.curves import axis_label, lines, quantity
from tiltmeter.reports.tables.format import three_digits
from tiltmeter.studies.comparisons import TOGETHER, at_nearest, difference, means_at_nearest, too_few, verb
from tiltmeter.studies.estimands import STEP_TOLERANCE, readout_name
from tiltmeter.studies.lee2024.estimands import here
from tiltmeter.studies.lee2024.experiments import BASELINES
from tiltmeter.studies.lee2024.figures.ratio_curves import ISOTROPIC, relative_panel
from tiltmeter.studies.lee2024.figures.wording import KL, L2, LENGTHS, RATIO, SCALED, TITLE
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.results import Results, saes_by_kind
from tiltmeter.studies.sae_labels import sae_labels
from tiltmeter.studies.study import PaperFigure

CLOSE_UP = 51.0
"""The paper's length up to which the close-up shows curves: before the spike of end-to-end SAEs."""


def _columns(results: Results, experiment: str, readout: str, direction: str, baselines: Sequence[str]) -> list[Panel]:
    """A panel for each kind of SAE: the baselines, and a curve for each sparsity."""
    curves, table = results[experiment], results.table(experiment)
    labels, name = sae_labels(results, [experiment]), readout_name(curves, readout)
    panels = []
    for kind, saes in saes_by_kind(curves).items():
        of_saes = lines(curves, table, name, [f"{direction}:{sae}" for sae in saes])
        named = [replace(line, name=labels[sae], group=kind) for line, sae in zip(of_saes, saes, strict=True)]
        marks = (*lines(curves, table, name, baselines), *named)
        panels.append(Panel(f"{kind} SAEs", Axis(axis_label(curves.step)), Axis(quantity(curves, table, name)), marks))
    return panels


def _relative(results: Results, experiment: str, readout: str, direction: str, panels: Sequence[Panel]) -> list[Panel]:
    """The same panels, of ratios to isotropic directions."""
    curves = results[experiment]
    directions = {label: f"{direction}:{sae}" for sae, label in sae_labels(results, [experiment]).items()}
    directions |= {name: name for name in BASELINES}
    name = readout_name(curves, readout)
    return [relative_panel(results, experiment, name, panel, directions) for panel in panels]


def _both(experiment: str, readout: str, direction: str) -> Callable[[Results], Chart]:
    """Rows: the curves, and their ratios to isotropic directions. A column for each kind of SAE."""

    def chart(results: Results) -> Chart:
        panels = _columns(results, experiment, readout, direction, BASELINES)
        below = (replace(one, title="") for one in _relative(results, experiment, readout, direction, panels))
        return Chart((tuple(panels), tuple(below)))

    return chart


def _ratios(experiment: str, readout: str, direction: str) -> Callable[[Results], Chart]:
    """The ratios of the curves to isotropic directions, a column for each kind of SAE."""

    def chart(results: Results) -> Chart:
        panels = _columns(results, experiment, readout, direction, BASELINES)
        return Chart((tuple(_relative(results, experiment, readout, direction, panels)),))

    return chart


def _close_up(readout: str) -> Callable[[Results], Chart]:
    """The beginning of the curves along errors, and of their ratios to isotropic directions."""

    def chart(results: Results) -> Chart:
        reach = here(results["errors"], CLOSE_UP) * (1 + STEP_TOLERANCE)
        panels = [_cut(one, reach) for one in _columns(results, "errors", readout, "sae-error", (ISOTROPIC,))]
        below = (replace(one, title="") for one in _relative(results, "errors", readout, "sae-error", panels))
        return Chart((tuple(panels), tuple(below)))

    return chart


def _cut(panel: Panel, reach: float) -> Panel:
    """The points up to a length, all of them in view."""
    return replace(panel, marks=tuple(_beginning(mark, reach) for mark in panel.marks if isinstance(mark, Line)))


def _beginning(line: Line, reach: float) -> Line:
    near = line.x <= reach
    assert line.low is not None and line.high is not None
    return replace(line, x=line.x[near], y=line.y[near], low=line.low[near], high=line.high[near])


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


_COLUMNS = "a column for each kind of SAE, a curve for each sparsity (darker: higher L0), with the paper's baselines."
_ERRORS = "along SAE errors, SAE(x) - x:"
_FEATURES = "along decoder rows of latents that are alive but not active in the sequence:"


def _errors(
    number: str, end: str, readout: str, words: str, chart: Callable[[str, str, str], Callable[[Results], Chart]]
) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: errors of SAEs{end}",
        caption=f"{words} {SCALED}",
        claimed="" if end else _CLAIMED_OF_ERRORS,
        needs=("errors",),
        chart=chart("errors", readout, "sae-error"),
        finding=_finding("cov-random-mixture", "errors", "sae-error", readout),
    )


def _errors_close_up(number: str, whole: str, end: str, readout: str, claimed: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: errors of SAEs, close up{end}",
        caption=f"Top: the beginning of the curves of {figure(whole)}, up to the paper's length {CLOSE_UP:g}, scaled; "
        f"all panels of a row have one axis. Bottom: the same curves divided by the isotropic one. {RATIO} {SCALED}",
        claimed=claimed,
        needs=("errors",),
        chart=_close_up(readout),
        finding=_finding("isotropic", "errors", "sae-error", readout, (21.0, 41.0)),
    )


def _features(number: str, end: str, readout: str, quantity: str, claimed: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: features of SAEs{end}",
        caption=f"{quantity} {_FEATURES} {_COLUMNS} The curves of the paper's figure, which lie close together, are "
        f"divided by the isotropic one. {RATIO} {SCALED}",
        claimed=claimed,
        needs=("features",),
        chart=_ratios("features", readout, "sae-feature"),
        finding=_finding("cov-random-mixture", "features", "sae-feature", readout),
    )


_CLAIMED_OF_ERRORS = (
    "A plateau, then a more linear increase. Local SAEs: close to the cov-random mixture, lower L0 above. End-to-end "
    "SAEs: low up to about 50, then a spike; above 70 lower L0 is above, below 50 the opposite."
)
FIGURE_5 = _errors(
    "5",
    "",
    "kl",
    f"{KL} {_ERRORS} {_COLUMNS} Top: KL. Bottom: KL divided by that along isotropic directions, which shows small "
    f"lengths, too. {RATIO}",
    _both,
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
FIGURE_5_L2 = _errors(
    "L2-5",
    ", L2",
    "l2",
    f"{L2} {_ERRORS} {_COLUMNS} The curves of the paper's figure, which lie close together, are divided by the "
    f"isotropic one. {RATIO}",
    _ratios,
)
FIGURE_6_L2 = _errors_close_up("L2-6", "L2-5", ", L2", "l2", "")
FIGURE_7_L2 = _features("L2-7", ", L2", "l2", L2, "")
