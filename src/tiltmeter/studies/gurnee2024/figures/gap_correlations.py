"""Figures 9 and 10: what the KL gap of a token correlates with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tiltmeter.analysis.clusters import Documents
from tiltmeter.analysis.correlations import matrix, sums_of
from tiltmeter.analysis.curves import documents_of
from tiltmeter.analysis.estimates import ABOVE_ONE
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.reports.charts.chart import Axis, Chart, HeatMap, Line, Panel, in_rows
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.estimands import PerToken, correlation
from tiltmeter.studies.gurnee2024.figures.wording import ALL_TOKENS, BANDS, GAP, INTERVALS, TITLE, alone
from tiltmeter.studies.gurnee2024.gap import PREDICTORS, gap, gap_by_layer, gap_with
from tiltmeter.studies.gurnee2024.per_token import layer_of, mean_of, study_layer
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.study import PaperFigure

GROUPS = 12
"""Groups of equally many tokens."""


class Trend(NamedTuple):
    """Means of a value in groups of tokens, with their intervals."""

    x: Float[np.ndarray, " group"]
    mean: Float[np.ndarray, " group"]
    low: Float[np.ndarray, " group"]
    high: Float[np.ndarray, " group"]


def trend(by: PerToken, values: PerToken, documents: Documents | None = None) -> Trend:
    """Means of `values` in groups by `by`, with intervals over the sequences that have a token in the group."""
    edges = np.unique(np.nanquantile(by, np.linspace(0, 1, GROUPS + 1)))
    group = np.clip(np.searchsorted(edges, by, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for one in range(max(len(edges) - 1, 1)):
        inside = (group == one) & ~np.isnan(by)
        if not inside.any():
            continue
        found = mean_interval(mean_of(np.where(inside, values, np.nan)), documents=documents)
        rows.append([float(np.mean(by[inside])), *map(float, found[:3])])
    return Trend(*np.array(rows).T)


def _predictor_chart(results: Results) -> Chart:
    layer = study_layer(results)
    one = layer_of(results, layer)
    values = gap(one.curves)
    panels = []
    for name, of in PREDICTORS.items():
        by = of(one)
        r = float(matrix(sums_of([values, by]))[0, 1])
        found = trend(by, values, documents_of(one.curves))
        line = Line("gap", found.x, found.mean, style("sae-error"), found.low, found.high)
        correlated = "does not vary" if np.isnan(r) else f"r = {r:+.2f}"
        panels.append(Panel(f"{name} ({correlated})", Axis(name), Axis(f"KL gap, nats, layer {layer}"), (line,)))
    return Chart(in_rows(panels, 2), share=("y",))


def _predictor_finding(results: Results) -> str:
    found = {name: alone(results, gap_with(name, ABOVE_ONE)(results)[0]) for name in PREDICTORS}
    parts = [f"{name} {one if one.value == one.value else '(which does not vary)'}" for name, one in found.items()]
    return f"Correlation of the KL gap at layer {study_layer(results)} with {', '.join(parts)}. {INTERVALS}"


def _layer_chart(results: Results) -> Chart:
    found = gap_by_layer(results)
    if len(found) < 2:
        raise NotMeasured("The gap was measured at one layer only.")
    z = matrix(sums_of(list(found.values())))
    z = np.where(np.eye(len(z), dtype=bool), np.nan, z)  # a layer's correlation with itself is 1 by definition
    at = np.array(list(found), np.float64)
    mark = HeatMap("correlation of KL gaps over tokens", at, at, z)
    return Chart(((Panel("", Axis("layer"), Axis("layer"), (mark,)),),))


def _layer_finding(results: Results) -> str:
    layer, found = study_layer(results), gap_by_layer(results)
    if layer not in found or len(found) < 2:
        raise NotMeasured("The gap was not measured at the study's layer and at another.")
    others = {
        at: alone(results, correlation("", found[layer], values, ABOVE_ONE))
        for at, values in found.items()
        if at != layer
    }
    words = ", ".join(f"{at} {one}" for at, one in others.items())
    return f"Correlation of the KL gap at layer {layer} with that at layer {words}. {INTERVALS}"


FIGURE_9 = PaperFigure(
    title=f"{TITLE}, Figure 9: predictors of the gap",
    caption=f"{GAP} Mean gap in groups of equally many tokens, by the cosine of SAE(x) with x, the number of active "
    "latents (L0), the position, and the logarithm of the token's frequency in the token set, at the layer that "
    f"corresponds to the paper's layer 6. Titles: Pearson's correlation over tokens. {ALL_TOKENS} {BANDS}",
    claimed="The gap correlates with the cosine, a little with the number of active latents, and not with the token's "
    "frequency.",
    needs=("layers", "tokens", "draws"),
    chart=_predictor_chart,
    finding=_predictor_finding,
)

FIGURE_10 = PaperFigure(
    title=f"{TITLE}, Figure 10: the gap in other layers",
    caption=f"{GAP} Pearson's correlation over tokens between the gaps of two layers. {ALL_TOKENS}",
    claimed="The strongest correlations are with the gaps in other layers.",
    needs=("layers", "tokens", "draws"),
    chart=_layer_chart,
    finding=_layer_finding,
)
