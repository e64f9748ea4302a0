"""How the curves of Heimersheim & Mendel 2024 are drawn: a thin line for each of some prompts, and the mean of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.analysis.bootstrap import bootstrap_mean
from tiltmeter.analysis.shapes import separation_auc
from tiltmeter.perturb.names import split_draw
from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel, Rule
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.shapes import panels
from tiltmeter.reports.charts.styles import Style, style
from tiltmeter.studies.estimands import late_l2, pair_distance, read
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD, crossings
from tiltmeter.studies.heimersheim2024.experiments import NAIVE, OTHER_BASE, RANDOM, RANDOM_BASE, REAL
from tiltmeter.studies.results import Results

Draw = Callable[[Results], Chart]

SINGLE = 20
"""Prompts whose own curves are drawn, about as many as the post has curves."""

GRID = 41
"""Points of a mean curve by distance."""


class Series(NamedTuple):
    """Curves of one kind: where they were measured, and how they are drawn."""

    name: str
    experiment: str
    direction: str
    style: Style
    singles: int = SINGLE
    """Prompts whose own curves are drawn."""


def bases(mode: str) -> tuple[Series, ...]:
    """Random targets, on the post's two kinds of base."""
    return (
        Series("real base", mode, RANDOM, style("clean")),
        Series("random base", f"{mode}-random-base", RANDOM, style(RANDOM_BASE)),
    )


def more_bases(mode: str) -> tuple[Series, ...]:
    """The same, and the mean on another prompt's activation."""
    other = Series("another prompt's activation as base", f"{mode}-other-base", RANDOM, style(OTHER_BASE), singles=0)
    return (*bases(mode), other)


def directions(mode: str, *names: str) -> tuple[Series, ...]:
    """Directions from the prompt's own activation."""
    return tuple(Series(name, mode, name, style(name)) for name in names)


BOTH = (RANDOM, REAL)
ALL = (RANDOM, REAL, NAIVE)


def by_step(series: Sequence[Series]) -> Draw:
    """KL, and L2 after the last block, by angle or by length in ‖x‖."""

    def draw(results: Results) -> Chart:
        return Chart((tuple(_stepwise(results, series, readout) for readout in ("kl", "l2")),))

    return draw


def by_distance(series: Sequence[Series]) -> Draw:
    """KL, and L2 after the last block, by the distance from the base."""

    def draw(results: Results) -> Chart:
        return Chart((tuple(_distancewise(results, series, readout) for readout in ("kl", "l2")),))

    return draw


def late_layer(results: Results) -> Chart:
    """Rows: the study's layer, the last one. Columns: KL, L2 after the last block."""
    rows = []
    for experiment in ("sphere", "sphere-last-layer"):
        chosen = tuple(one._replace(experiment=experiment) for one in directions("sphere", *BOTH))
        title = f"moved at {results[experiment].attrs['site']}"
        rows.append(tuple(replace(_stepwise(results, chosen, readout), title=title) for readout in ("kl", "l2")))
    return Chart(tuple(rows))


def one_prompt(results: Results) -> Chart:
    """Rows: straight and sphere mode. Columns: prompts, with all directions of each."""
    rows = []
    for mode in ("straight", "sphere"):
        curves = results[f"{mode}-draws"]
        x, y = Axis(axis_label(curves.step)), Axis(axis_label(curves.kl))
        rows.append(
            tuple(
                Panel(f"prompt {sequence}", x, y, (*_drawn(curves.sel(sequence=sequence)), _threshold()))
                for sequence in curves.sequence.values
            )
        )
    return Chart(tuple(rows))


def histograms(results: Results) -> Chart:
    """Rows: angle and length where KL passes the threshold. Columns: counts, and the part that is past."""
    rows = []
    for mode in ("sphere", "straight"):
        curves = results[mode]
        found = {name: crossings(curves, name) for name in BOTH}
        left, right = panels(found, f"{axis_label(curves.step)} at KL {THRESHOLD:g}")
        never = ", ".join(str(int(shape.censored.sum())) for shape in found.values())
        auc = separation_auc(found[REAL], found[RANDOM])
        title = f"area under the ROC curve {auc:.2f}"
        rows.append((replace(left, title=title), replace(right, title=f"never past it: {never}")))
    return Chart(tuple(rows), share=())


def _stepwise(results: Results, series: Sequence[Series], readout: str) -> Panel:
    first = results[series[0].experiment]
    name = late_l2(first) if readout == "l2" else readout
    thin, means = [], []
    for one in series:
        curves = results[one.experiment]
        x, values = curves.step.values, read(curves, name, one.direction)
        thin += [Line(one.name, x, value, one.style, thin=True) for value in values[: one.singles]]
        table = results.table(one.experiment)
        rows = table[(table.readout == name) & (table.direction == one.direction)].sort_values("step")
        y, low, high = (rows[column].to_numpy(np.float64) for column in ("mean", "low", "high"))
        means.append(Line(one.name, np.sort(x), y, one.style, low, high))
    rule = (_threshold(),) if readout == "kl" else ()
    return Panel("", Axis(axis_label(first.step)), Axis(axis_label(first[name])), (*thin, *means, *rule))


def _distancewise(results: Results, series: Sequence[Series], readout: str) -> Panel:
    first = results[series[0].experiment]
    name = late_l2(first) if readout == "l2" else readout
    curves = {one: (_lengths(results, one), read(results[one.experiment], name, one.direction)) for one in series}
    reach = min(float(np.nanmin(along[:, -1])) for along, _ in curves.values())
    grid = np.linspace(0.0, reach, GRID)
    thin, means = [], []
    for one, (along, values) in curves.items():
        pairs = list(zip(along, values, strict=True))
        thin += [Line(one.name, x, y, one.style, thin=True) for x, y in pairs[: one.singles]]
        mean, low, high, _ = bootstrap_mean(np.stack([np.interp(grid, x, y) for x, y in pairs], -1))
        means.append(Line(one.name, grid, mean, one.style, low, high))
    rule = Rule(pair_distance(first), text="pair distance")
    return Panel("", Axis("distance from the base (L2)"), Axis(axis_label(first[name])), (*thin, *means, rule))


def _lengths(results: Results, one: Series) -> Float[np.ndarray, "sequence step"]:
    return np.asarray(read(results[one.experiment], "length", one.direction))


def _drawn(curves: xr.Dataset) -> list[Line]:
    """All directions from one prompt, thin, and the mean of each kind."""
    kinds = {kind: [name for name in curves.direction.values if split_draw(name).name == kind] for kind in BOTH}
    thin, means = [], []
    for kind, names in kinds.items():
        values = curves.kl.sel(direction=names).transpose("direction", "step").to_numpy()
        thin += [Line(kind, curves.step.values, value, style(kind), thin=True) for value in values]
        means.append(Line(kind, curves.step.values, values.mean(axis=0), style(kind)))
    return thin + means


def _threshold() -> Rule:
    return Rule(THRESHOLD, "y", f"KL {THRESHOLD:g}")
