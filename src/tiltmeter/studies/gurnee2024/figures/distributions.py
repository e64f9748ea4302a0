"""Figures 3 and 4: distributions over tokens of KL and of the loss increase, in each layer."""

from __future__ import annotations

import numpy as np

from tiltmeter.reports.charts.chart import Axis, Chart, Histogram, Panel, in_rows
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.estimands import PerToken
from tiltmeter.studies.gurnee2024.estimands import PAIR_OF_KINDS, QUANTILES, loss_ratios, quantile_ratios
from tiltmeter.studies.gurnee2024.figures.wording import (
    ALL_TOKENS,
    COLUMNS,
    INTERVALS,
    KL,
    PAIR,
    TITLE,
    range_over_layers,
)
from tiltmeter.studies.gurnee2024.per_token import layers, loss_increase, per_token
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

MOST_KL, MOST_LOSS = 1.0, 1.0
"""Where histograms end, nats; tokens beyond are counted in the outer bins."""
BINS = 50


def _kl_chart(results: Results) -> Chart:
    panels = []
    for layer, curves in results.by_layer("layers").items():
        values = {kind: per_token(curves, kind) for kind in PAIR_OF_KINDS}
        far = " and ".join(f"{float(np.nanquantile(one, 0.999)):.2g}" for one in values.values())
        panels.append(_panel(f"layer {layer} (99.9 %: {far})", KL, values, 0.0, MOST_KL))
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def _loss_chart(results: Results) -> Chart:
    panels = []
    for layer, one in layers(results).items():
        values = {kind: loss_increase(one, kind) for kind in PAIR_OF_KINDS}
        means = " and ".join(f"{float(np.nanmean(each)):+.2g}" for each in values.values())
        title = f"layer {layer} (mean: {means})"
        panels.append(_panel(title, "increase of the next-token loss, nats", values, -MOST_LOSS, MOST_LOSS))
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def _panel(title: str, label: str, values: dict[str, PerToken], low: float, high: float) -> Panel:
    counts = Axis("tokens", log=True, limits=(0.5, 1.3 * max(one.size for one in values.values())))
    return Panel(title, Axis(label), counts, _histograms(values, low, high))


def _histograms(values: dict[str, PerToken], low: float, high: float) -> tuple[Histogram, ...]:
    """Counts in common bins; tokens beyond them are in the first and the last."""
    edges = np.linspace(low, high, BINS + 1)
    known = {kind: np.clip(one[~np.isnan(one)], low, high) for kind, one in values.items()}
    return tuple(
        Histogram(kind, edges, np.histogram(one, edges)[0].astype(np.float64), style(kind))
        for kind, one in known.items()
    )


def _kl_finding(results: Results) -> str:
    parts = [
        range_over_layers(f"{q:.0%} quantile of KL, SAE(x) ÷ random point", results, quantile_ratios(results, q))
        for q in QUANTILES
    ]
    return " ".join([*parts, INTERVALS])


def _loss_finding(results: Results) -> str:
    return " ".join(
        [range_over_layers("Loss increase of SAE(x) ÷ random point", results, loss_ratios(results)), INTERVALS]
    )


FIGURE_3 = PaperFigure(
    title=f"{TITLE}, Figure 3: distribution of KL",
    caption=f"Number of tokens by KL if they are replaced by {PAIR}, in each layer; tokens above {MOST_KL:g} are in "
    f"the last bin, as in the paper. Titles: 99.9th percentiles of both. {ALL_TOKENS}",
    claimed="The whole distribution is shifted; the higher mean is not driven by a few outliers.",
    needs=("layers",),
    chart=_kl_chart,
    finding=_kl_finding,
)

FIGURE_4 = PaperFigure(
    title=f"{TITLE}, Figure 4: distribution of the loss increase",
    caption=f"Number of tokens by increase of the next-token loss if they are replaced by {PAIR}, in each layer; "
    f"tokens beyond ±{MOST_LOSS:g} are in the first and last bins. Titles: means of both. {ALL_TOKENS}",
    claimed="The mean loss increase of SAE(x) is 2 to 4 times that of the random point.",
    needs=("layers", "tokens"),
    chart=_loss_chart,
    finding=_loss_finding,
)
