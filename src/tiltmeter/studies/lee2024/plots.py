"""How the figures of Lee & Heimersheim 2024 are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Line, Panel, Points
from tiltmeter.reports.charts.curves import facets, lines, quantity
from tiltmeter.reports.charts.shapes import distributions
from tiltmeter.reports.charts.styles import styles
from tiltmeter.studies.estimands import late_l2
from tiltmeter.studies.lee2024.estimands import matched
from tiltmeter.studies.lee2024.experiments import BASELINES, PAIR_DISTANCE, SUBSTITUTIONS
from tiltmeter.studies.results import Results, saes_by_kind

Draw = Callable[[Results], Chart]

DIFFERENCE_OR_MIXTURE = {
    "cov-random": ("cov-random-difference", "cov-random-mixture"),
    "real": ("real-difference", "real-mixture"),
}
COV_RANDOM_OR_REAL = {
    "difference": ("isotropic-difference", "cov-random-difference", "real-difference"),
    "mixture": ("isotropic", "cov-random-mixture", "real-mixture"),
}
CLOSE_UP = 0.45
"""How much of the path the close-up shows: the paper's reach of 61 of 101, less the spike of end-to-end SAEs."""
BAR_LENGTHS = (21.0, 41.0, 61.0)
"""Where the paper's bars stand: 20, 40 and 61 by its caption, 21, 41 and 61 on the grid of its code."""


def by_length(experiment: str, readout: str, groups: Mapping[str, Sequence[str]]) -> Draw:
    """Mean curves in columns. `readout` is `kl`, or `l2` for the L2 distance after the last block."""

    def draw(results: Results) -> Chart:
        curves = results[experiment]
        return facets(curves, results.table(experiment), [_readout(curves, readout)], groups)

    return draw


def by_kind(experiment: str, readout: str, direction: str, baselines: Sequence[str]) -> Draw:
    """A column for each kind of SAE: a curve for each of its sparsities, and the baselines."""

    def draw(results: Results) -> Chart:
        curves = results[experiment]
        groups = {
            kind: (*baselines, *(f"{direction}:{sae}" for sae in saes)) for kind, saes in saes_by_kind(curves).items()
        }
        return facets(curves, results.table(experiment), [_readout(curves, readout)], groups)

    return draw


def close_up(readout: str) -> Draw:
    """The beginning of the curves along errors, each column with an axis of its own."""
    whole = by_kind("errors", readout, "sae-error", ("isotropic",))

    def draw(results: Results) -> Chart:
        chart = whole(results)
        reach = CLOSE_UP * float(results["errors"].step.max())
        panels = tuple(_cut(panel, reach) for panel in chart.rows[0])
        return replace(chart, rows=(panels,), share=())

    return draw


def _cut(panel: Panel, reach: float) -> Panel:
    marks = [mark for mark in panel.marks if isinstance(mark, Line)]
    near = np.concatenate([mark.y[mark.x <= reach] for mark in marks])
    highest = float(near[np.isfinite(near)].max(initial=0.0)) or 1.0
    return replace(
        panel, x=replace(panel.x, limits=(0.0, reach)), y=replace(panel.y, limits=(-0.03 * highest, 1.08 * highest))
    )


def early(results: Results) -> Chart:
    """Rows: cov-random, real. Columns: L2 after the last block, KL; in the early layer."""
    curves, table = results["directions-early"], results.table("directions-early")
    rows = tuple(
        tuple(_panel(kind, curves, table, readout, names) for readout in (late_l2(curves), "kl"))
        for kind, names in DIFFERENCE_OR_MIXTURE.items()
    )
    return Chart(rows, share=("x",))


def early_mixtures(results: Results) -> Chart:
    """L2 after the last block, and KL, of mixtures and isotropic directions, in the early layer."""
    curves, table = results["directions-early"], results.table("directions-early")
    panels = tuple(_panel("", curves, table, readout, BASELINES) for readout in (late_l2(curves), "kl"))
    return Chart((panels,), share=("x",))


def _panel(title: str, curves: xr.Dataset, table: pd.DataFrame, readout: str, names: Sequence[str]) -> Panel:
    axis = Axis(f"perturbation length ({curves.step.attrs['units']})")
    return Panel(title, axis, Axis(quantity(curves, table, readout)), lines(curves, table, readout, names))


def substitution_by_layer(results: Results) -> Chart:
    """A group of bars for each layer."""
    layers = results.by_layer("layers")
    tables = {str(layer): results.table(f"layers-{layer}") for layer in layers}
    return _substitution_bars(tables, "layer")


def substitution_by_sae(results: Results) -> Chart:
    """A group of bars for each SAE of the layer that was trained to reconstruct."""
    curves, table = results["reconstructions"], results.table("reconstructions")
    local = saes_by_kind(curves).get("local", [])
    tables = {sae: table[table.direction.str.endswith(f":{sae}")] for sae in local}
    return _substitution_bars(tables, f"SAE at {curves.attrs['site']}")


def _substitution_bars(tables: dict[str, pd.DataFrame], label: str) -> Chart:
    marks = []
    for kind, style in styles(SUBSTITUTIONS).items():
        rows = [_one(table, kind) for table in tables.values()]
        y, low, high = (np.array([row[column] for row in rows]) for column in ("mean", "low", "high"))
        marks.append(Bars(kind, tuple(tables), y, style, low, high))
    return Chart(((Panel("", Axis(label), Axis("KL(clean ‖ perturbed), nats"), tuple(marks)),),))


def _one(table: pd.DataFrame, kind: str) -> pd.Series:
    (row,) = (row for _, row in table[table.readout == "kl"].iterrows() if row.direction.partition(":")[0] == kind)
    return row


def bars_at_lengths(readout: str) -> Draw:
    """A panel for each of three lengths: features of the SAEs nearest to the paper's L0, and the baselines."""

    def draw(results: Results) -> Chart:
        curves, table = results["features"], results.table("features")
        name = _readout(curves, readout)
        chosen = [*BASELINES, *(f"sae-feature:{matched(curves, kind)}" for kind in saes_by_kind(curves))]
        scale = float(curves.attrs["pair_distance"]) / PAIR_DISTANCE
        panels = tuple(_bars_at(curves, table, name, chosen, length * scale) for length in BAR_LENGTHS)
        return Chart((panels,), share=("x",))

    return draw


def _bars_at(curves: xr.Dataset, table: pd.DataFrame, readout: str, names: Sequence[str], length: float) -> Panel:
    step = float(curves.step.sel(step=length, method="nearest"))
    rows = table[(table.readout == readout) & (table.step == step)].set_index("direction")
    style_of = styles([str(name) for name in curves.direction.values])
    marks = []
    for name in names:
        y, low, high = (np.array([float(rows.loc[name, column])]) for column in ("mean", "low", "high"))
        marks.append(Bars(name, (name,), y, style_of[name], low, high))
    return Panel(f"length {step:.1f}", Axis(""), Axis(quantity(curves, table, readout)), tuple(marks))


def reconstruction_error(results: Results) -> Chart:
    """KL of SAE(x) by its distance, a dot for each SAE."""
    curves, table = results["reconstructions"], results.table("reconstructions")
    marks = []
    style_of = styles([str(name) for name in curves.direction.values])
    for kind, saes in saes_by_kind(curves).items():
        rows = table[table.direction.isin([f"sae-error:{sae}" for sae in saes])]
        kl, far = (rows[rows.readout == name].set_index("direction") for name in ("kl", "length"))
        far = far.loc[kl.index]
        marks.append(
            Points(
                kind,
                far["mean"].to_numpy(),
                kl["mean"].to_numpy(),
                style_of[f"sae-error:{saes[-1]}"],
                kl.low.to_numpy(),
                kl.high.to_numpy(),
                tuple(name.partition(":")[2] for name in kl.index),
            )
        )
    panel = Panel("", Axis("mean ‖SAE(x) - x‖, L2"), Axis("KL(clean ‖ perturbed), nats"), tuple(marks))
    return Chart(((panel,),))


def shapes(results: Results) -> Chart:
    """Where single tokens' curves are steepest, and where they are halfway up."""
    return distributions(results["shapes"], "kl")


def _readout(curves: xr.Dataset, readout: str) -> str:
    return late_l2(curves) if readout == "l2" else readout
