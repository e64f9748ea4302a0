"""Figures 2, 3, A.1 and B.1, and two of the notebooks: distributions of one step per curve, by type of activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.charts.chart import Chart, Panel
from tiltmeter.reports.charts.shapes import censored_title, panels
from tiltmeter.studies.comparisons import too_few
from tiltmeter.studies.giglemiani2024.curve_statistics import STATISTICS, censored_part, ks_from_real, samples
from tiltmeter.studies.giglemiani2024.experiments import STEPS
from tiltmeter.studies.giglemiani2024.figures.wording import ABSOLUTE_STEP, PLATEAUS, SETUP, TITLE, mean_step
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

CLIPPED = 0.4
"""The fraction of the path that is shown for plateaus, as in the paper."""


def _chart(*names: str, fraction: float = 1.0) -> Callable[[Results], Chart]:
    """A row for each statistic: counts and cumulative distribution by type, over this fraction of the path."""

    def chart(results: Results) -> Chart:
        return Chart(tuple(_row(results, name, fraction) for name in names), share=())

    return chart


def _row(results: Results, name: str, fraction: float) -> tuple[Panel, ...]:
    statistic, found = STATISTICS[name], samples(results, name)
    counts, cumulative = (
        replace(panel, x=replace(panel.x, limits=(0.0, fraction * STEPS)))
        for panel in panels(found, statistic.label, (0.0, float(STEPS)))
    )
    return counts, replace(cumulative, title=censored_title(found))


def _finding(*names: str) -> Callable[[Results], str]:
    """Mean step of each type, its KS distance from real activations, and how many curves are censored."""

    def finding(results: Results) -> str:
        found = {name: samples(results, name) for name in names}
        experiment = STATISTICS[names[0]].experiment
        if few := too_few(results["plateaus-real" if experiment == "plateaus" else experiment]):
            return few
        return " ".join(_sentence(results, STATISTICS[name].label, shapes) for name, shapes in found.items())

    return finding


def _sentence(results: Results, label: str, shapes: dict[str, Shape]) -> str:
    means = ", ".join(f"{kind} {mean_step(results, shape)}" for kind, shape in shapes.items())
    distance = ks_from_real(shapes)
    nearest_first = ", ".join(f"{kind} {distance[kind]:.2f}" for kind in sorted(distance, key=distance.__getitem__))
    return f"{label}, mean: {means}. KS distance from real: {nearest_first}.{_censored(shapes)}"


def _censored(shapes: dict[str, Shape]) -> str:
    parts = {kind: censored_part(shape) for kind, shape in shapes.items()}
    if not any(parts.values()):
        return ""
    return (
        " Censored curves, which count as the last step in these means (none: more than half are): "
        f"{', '.join(f'{kind} {part:.1%}' for kind, part in parts.items() if part)}."
    )


_ABSOLUTE = f"{ABSOLUTE_STEP} A curve is read up to its target."
_RELATIVE = "A step is 1/100 of the distance to the target."
_TYPES = (
    "Targets: activations from other sequences (real; the paper's model-generated), samples with the mean and "
    "covariance of real activations (cov-random; the paper's random), two kinds of synthetic activations composed of "
    "SAE latents (synthetic-baseline, synthetic-structured), and the SAE's reconstructions of real activations "
    "(sae-reconstruction; from the notebooks)."
)
_PANELS = (
    "Left: counts in at most 30 common bins. Right: cumulative fraction of all curves. Curves without such a step are "
    "censored: they count in the denominator, so their type's line ends below 1, and their numbers are above the "
    "panel, in the order of the legend."
)
_MS = "The MS (max-slope) step is where the steepest rise ends."
_AUC = (
    "The AUC step is where the area of the triangle under the chord from the start is largest relative to the area "
    "under the curve; it is 5 for a straight line."
)
_NL = "The NL step is the last before the curve deviates by 20 % from a line through its first ten values."
_AP = (
    "The AP (activation plateau) step is the first at which the L2 distance reaches 20/241 of the median at the end "
    "of the curves from real activations, corresponding to the paper's 20."
)
_ORDER = "Structured is more similar to real than the baseline is. (The authors' notebooks.)"
_PATHS = ("absolute", "relative")

FIGURE_2 = PaperFigure(
    title=f"{TITLE}, Figure 2: max-slope steps",
    caption=f"{_MS} {SETUP} {_ABSOLUTE} {_TYPES} {_PANELS}",
    claimed="Perturbing toward synthetic-structured activations is more similar to perturbing toward model-generated "
    "ones than perturbing toward synthetic-baseline ones is.",
    needs=_PATHS,
    chart=_chart("ms-absolute"),
    finding=_finding("ms-absolute"),
)

FIGURE_3 = PaperFigure(
    title=f"{TITLE}, Figure 3: activation plateaus",
    caption=f"{_AP} {SETUP} Paths start at activations of four types, which replace the real one, and lead toward "
    "random activations; changes are relative to the output with the base in place. A step is 1/100 of the mean "
    f"distance between two real activations; the first 40 are shown. {_PANELS}",
    claimed="Model-generated activations have flatter plateaus around them than all others; synthetic-baseline "
    "activations have the steepest; those around synthetic-structured and random activations look similar.",
    needs=PLATEAUS,
    chart=_chart("ap", fraction=CLIPPED),
    finding=_finding("ap"),
)

FIGURE_A1 = PaperFigure(
    title=f"{TITLE}, Figure A.1: max-slope steps, relative",
    caption=f"{_MS} {SETUP} {_RELATIVE} {_TYPES} {_PANELS}",
    claimed="With relative steps, synthetic-structured is slightly more similar to model-generated than "
    "synthetic-baseline is.",
    needs=_PATHS,
    chart=_chart("ms-relative"),
    finding=_finding("ms-relative"),
)

FIGURE_B1 = PaperFigure(
    title=f"{TITLE}, Figure B.1: AUC steps",
    caption=f"{_AUC} {SETUP} Top: absolute. {_ABSOLUTE} Bottom: relative. {_RELATIVE} {_TYPES} {_PANELS}",
    claimed="The results for AUC steps are similar to those for MS steps.",
    needs=_PATHS,
    chart=_chart("auc-absolute", "auc-relative"),
    finding=_finding("auc-absolute", "auc-relative"),
)

NONLINEARITY = PaperFigure(
    title=f"{TITLE}: nonlinearity steps",
    caption=f"{_NL} {SETUP} Top: absolute. {_ABSOLUTE} Bottom: relative. {_RELATIVE} {_TYPES} {_PANELS}",
    claimed=_ORDER,
    needs=_PATHS,
    chart=_chart("nl-absolute", "nl-relative"),
    finding=_finding("nl-absolute", "nl-relative"),
)

MAX_SLOPE_OF_KL = PaperFigure(
    title=f"{TITLE}: max-slope steps of KL",
    caption=f"{_MS} The last of ten tokens is perturbed in an early layer. The readout is the KL of the next-token "
    f"prediction. Top: absolute. {_ABSOLUTE} Bottom: relative. {_RELATIVE} {_TYPES} {_PANELS}",
    claimed=_ORDER,
    needs=_PATHS,
    chart=_chart("kl-ms-absolute", "kl-ms-relative"),
    finding=_finding("kl-ms-absolute", "kl-ms-relative"),
)
