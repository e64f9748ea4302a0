"""Figures 3 and 4: KL with SAE(x) in the place of x, and with points at the same distance, by layer and by SAE."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiltmeter.perturb.names import DirectionName
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Panel
from tiltmeter.reports.charts.styles import styles
from tiltmeter.studies.comparisons import TOGETHER, compared_at_nearest, difference, too_few, verb
from tiltmeter.studies.lee2024.experiments import SUBSTITUTIONS
from tiltmeter.studies.lee2024.figures.wording import TITLE
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.results import Results, saes_by_kind, saes_of
from tiltmeter.studies.study import PaperFigure


def _chart_by_layer(results: Results) -> Chart:
    tables = {str(layer): results.table(f"layers-{layer}") for layer in results.by_layer("layers")}
    return _bars(tables, "layer")


def _chart_by_sae(results: Results) -> Chart:
    curves, table = results["reconstructions"], results.table("reconstructions")
    local = saes_by_kind(curves).get("local", [])
    tables = {sae: table[table.direction.str.endswith(f":{sae}")] for sae in local}
    return _bars(tables, f"SAE at {curves.attrs['site']}")


def _bars(tables: dict[str, pd.DataFrame], label: str) -> Chart:
    """A group of bars for each table, a bar for each substitution."""
    marks = []
    for kind, style in styles(SUBSTITUTIONS).items():
        rows = [_row(table, kind) for table in tables.values()]
        y, low, high = (np.array([row[column] for row in rows]) for column in ("mean", "low", "high"))
        marks.append(Bars(kind, tuple(tables), y, style, low, high))
    return Chart(((Panel("", Axis(label), Axis("KL(clean ‖ perturbed), nats"), tuple(marks)),),))


def _row(table: pd.DataFrame, kind: str) -> pd.Series:
    (row,) = (
        row for _, row in table[table.readout == "kl"].iterrows() if DirectionName.parse(row.direction).kind == kind
    )
    return row


def _finding_by_layer(results: Results) -> str:
    """SAE(x) compared with the cov-random mixture in each layer, and its ratio to the isotropic point."""
    layers = results.by_layer("layers")
    words, ratios = [], []
    for layer, curves in layers.items():
        if few := too_few(curves):
            return few
        (sae,) = saes_of(curves)
        values = curves.kl.isel(step=0)
        pair = f"sae-error:{sae}", f"epsilon-cov-random-mixture:{sae}"
        words.append(f"{layer} {verb(*difference(values, pair, 1 - 0.05 / len(layers)))}")
        own, isotropic = (
            float(values.sel(direction=f"{kind}:{sae}").mean()) for kind in ("sae-error", "epsilon-random")
        )
        ratios += [own / isotropic] if own >= 0 and isotropic > 0 else []
    times = (
        f"The KL of SAE(x) is {min(ratios):.2f} to {max(ratios):.2f} times that of the isotropic point at the same "
        "distance"
        if ratios
        else "The KL of the isotropic point is 0 or undefined, so no ratio to it is defined"
    )
    return (
        f"{times}. SAE(x) compared with the cov-random mixture at the same distance, by layer: {', '.join(words)}. "
        f"{TOGETHER}"
    )


def _finding_by_sae(results: Results) -> str:
    """SAE(x) compared with the cov-random mixture, for each SAE that was trained to reconstruct."""
    curves = results["reconstructions"]
    local = saes_by_kind(curves).get("local", [])
    pairs = [(f"sae-error:{sae}", f"epsilon-cov-random-mixture:{sae}") for sae in local]
    return compared_at_nearest(curves, "kl", pairs, [1.0])


FIGURE_3 = PaperFigure(
    title=f"{TITLE}, {figure('3')}: substitution by layer",
    caption="Mean KL(clean ‖ perturbed) with every activation of a layer replaced: by SAE(x), of an SAE that was "
    "trained to reconstruct, or by a point at the same distance from x along an isotropic direction, a cov-random "
    "mixture or a real mixture. Whiskers: 95 % intervals over sequences.",
    claimed="Isotropic substitutions have a much smaller KL than the others. Across all layers cov-random mixtures are "
    "slightly below real mixtures. SAE(x) is sometimes below, sometimes above the cov-random mixture.",
    needs=("layers",),
    chart=_chart_by_layer,
    finding=_finding_by_layer,
)

FIGURE_4 = PaperFigure(
    title=f"{TITLE}, {figure('4')}: substitution by SAE",
    caption="The same at one layer, for SAEs of several sparsities that were trained to reconstruct.",
    claimed="Isotropic substitutions have a much smaller KL; the three others are generally similar.",
    needs=("reconstructions",),
    chart=_chart_by_sae,
    finding=_finding_by_sae,
)
