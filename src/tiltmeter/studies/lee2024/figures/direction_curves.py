"""Figures 1 and 2, their L2 versions, the supplement's early layer, and the rerun with more tokens: mean curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import xarray as xr

from tiltmeter.reports.charts.chart import Axis, Chart, Panel, in_rows
from tiltmeter.reports.charts.curves import facets, lines, quantity
from tiltmeter.studies.comparisons import Pair, compared_at_nearest
from tiltmeter.studies.estimands import late_l2, readout_name
from tiltmeter.studies.lee2024.estimands import DECIDING_ANGLES, here
from tiltmeter.studies.lee2024.experiments import BASELINES
from tiltmeter.studies.lee2024.figures.wording import KL, L2, LENGTHS, SCALED, TITLE
from tiltmeter.studies.lee2024.numbering import ON_ARXIV_ALONE, figure
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

DIFFERENCE_OR_MIXTURE = {
    "cov-random": ("cov-random-difference", "cov-random-mixture"),
    "real": ("real-difference", "real-mixture"),
}
COV_RANDOM_OR_REAL = {
    "difference": ("isotropic-difference", "cov-random-difference", "real-difference"),
    "mixture": ("isotropic", "cov-random-mixture", "real-mixture"),
}
_DIFFERENCE_PAIRS = tuple(DIFFERENCE_OR_MIXTURE.values())
_KIND_PAIRS = (
    ("real-difference", "cov-random-difference"),
    ("real-mixture", "cov-random-mixture"),
    ("cov-random-mixture", "isotropic"),
)


def _chart(experiment: str, readout: str, groups: Mapping[str, Sequence[str]]) -> Callable[[Results], Chart]:
    """Mean curves, a column for each group of directions."""

    def chart(results: Results) -> Chart:
        curves = results[experiment]
        return facets(curves, results.table(experiment), [readout_name(curves, readout)], groups)

    return chart


def _finding(experiment: str, readout: str, pairs: Sequence[Pair]) -> Callable[[Results], str]:
    """Compare the directions of each pair at two lengths."""

    def finding(results: Results) -> str:
        curves = results[experiment]
        return compared_at_nearest(
            curves, readout_name(curves, readout), pairs, [here(curves, length) for length in LENGTHS]
        )

    return finding


def _early(results: Results) -> Chart:
    """Rows: L2 after the last block, KL. Columns: cov-random, real."""
    curves, table = results["directions-early"], results.table("directions-early")
    return facets(curves, table, [late_l2(curves), "kl"], DIFFERENCE_OR_MIXTURE)


def _early_mixtures(results: Results) -> Chart:
    """Columns: L2 after the last block, KL."""
    curves, table = results["directions-early"], results.table("directions-early")
    panels = tuple(_panel("", curves, table, readout, BASELINES) for readout in (late_l2(curves), "kl"))
    return Chart((panels,), share=("x",))


def _panel(title: str, curves: xr.Dataset, table: pd.DataFrame, readout: str, names: Sequence[str]) -> Panel:
    axis = Axis(f"perturbation length ({curves.step.attrs['units']})")
    return Panel(title, axis, Axis(quantity(curves, table, readout)), lines(curves, table, readout, names))


def _difference_and_mixture(number: str, end: str, readout: str, quantity: str, said: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: difference and mixture{end}",
        caption=f"{quantity}, for directions from x toward another activation (difference) and between two other "
        "activations (mixture). The activations are real, or samples with their mean and covariance (cov-random). "
        f"{SCALED}",
        claimed=f"{said}Perturbations that include the negative of the activation cause a greater change than "
        "mixtures.",
        needs=("directions",),
        chart=_chart("directions", readout, DIFFERENCE_OR_MIXTURE),
        finding=_finding("directions", readout, _DIFFERENCE_PAIRS),
    )


def _by_sample(number: str, same: str, end: str, readout: str, quantity: str, said: str) -> PaperFigure:
    return PaperFigure(
        title=f"{TITLE}, {figure(number)}: isotropic, cov-random and real{end}",
        caption=f"{quantity}: the curves of {figure(same)}, grouped by kind of direction, with isotropic ones. "
        f"{SCALED}",
        claimed=f"{said}Cov-random mixtures are far above isotropic directions; real differences are above cov-random "
        "differences; real and cov-random mixtures hardly differ.",
        needs=("directions",),
        chart=_chart("directions", readout, COV_RANDOM_OR_REAL),
        finding=_finding("directions", readout, _KIND_PAIRS),
    )


def _by_angle(results: Results) -> str:
    """Compare differences with mixtures at the angles that decide the claims."""
    return compared_at_nearest(results["directions-sphere"], "kl", _DIFFERENCE_PAIRS, DECIDING_ANGLES)


CONSTANT_NORM = PaperFigure(
    title=f"{TITLE}: difference and mixture at constant norm",
    caption="No figure of the paper. Mean KL(clean ‖ perturbed) of the next-token prediction by the angle from x, "
    "with the norm of x kept: whatever the direction, cos θ of x is left. All positions are perturbed. Bands: 95 % "
    "intervals over sequences.",
    claimed="Difference directions may primarily reflect the subtraction of the original activation (section 3.1). "
    "Then they are no stronger here, where mixtures take as much of it away.",
    needs=("directions-sphere",),
    chart=_chart("directions-sphere", "kl", DIFFERENCE_OR_MIXTURE),
    finding=_by_angle,
)

_L2_SAID = "The paper's L2 version of the same figure: "
FIGURE_1 = _difference_and_mixture("1", "", "kl", KL, "")
FIGURE_2 = _by_sample("2", "1", "", "kl", KL, "")
FIGURE_1_L2 = _difference_and_mixture("L2-1", ", L2", "l2", L2, _L2_SAID)
FIGURE_2_L2 = _by_sample("L2-2", "L2-1", ", L2", "l2", L2, _L2_SAID)

FIGURE_S1 = PaperFigure(
    title=f"{TITLE}, {figure('S1')}: an early layer, difference and mixture",
    caption=f"L2 distance after the last block and KL, perturbed in an early layer (2 of 12 in the paper). {SCALED}",
    claimed=f"The trend of {figure('1')}, holds, but in L2 the difference is minimal, much smaller than in the later "
    "layer.",
    needs=("directions-early",),
    chart=_early,
    finding=_finding("directions-early", "kl", _DIFFERENCE_PAIRS),
)

FIGURE_S2 = PaperFigure(
    title=f"{TITLE}, {figure('S2')}: an early layer, mixtures",
    caption="L2 distance after the last block and KL, for mixtures and isotropic directions in an early layer. "
    f"{SCALED}",
    claimed="Cov-random mixtures induce a significantly greater change than isotropic directions. Real mixtures "
    "induce the greatest, with a minimal difference from cov-random mixtures, especially in L2.",
    needs=("directions-early",),
    chart=_early_mixtures,
    finding=_finding("directions-early", "kl", _KIND_PAIRS[1:]),
)


def _larger(results: Results) -> Chart:
    """Rows: the groups of Figure 1, those of Figure 2."""
    chart = _chart("directions-larger", "kl", {**DIFFERENCE_OR_MIXTURE, **COV_RANDOM_OR_REAL})(results)
    return replace(chart, rows=in_rows(chart.panels, 2), share=("x", "y"))


LARGER = PaperFigure(
    title=f"{TITLE}, {ON_ARXIV_ALONE}: differences and mixtures on more tokens",
    caption=f"{KL}: {figure('1', '2')}, on more tokens (twice as many at the default size, seven times as many at size "
    f"paper), at every other length. {SCALED}",
    claimed=f"{figure('1')}, does not change with 15 million tokens.",
    needs=("directions-larger",),
    chart=_larger,
    finding=_finding("directions-larger", "kl", (*_DIFFERENCE_PAIRS, *_KIND_PAIRS)),
)
