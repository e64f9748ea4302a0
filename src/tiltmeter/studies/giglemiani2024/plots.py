"""How the figures of Giglemiani et al. 2024 are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import Region, estimate
from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Line, Panel, Points
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.shapes import panels as distribution_panels
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.estimands import read
from tiltmeter.studies.giglemiani2024.curve_statistics import STATISTICS, readout_of, sample, samples, step_length
from tiltmeter.studies.giglemiani2024.estimands import distance
from tiltmeter.studies.giglemiani2024.experiments import STEPS, TARGET
from tiltmeter.studies.results import Results

EXAMPLES = 3
"""Curves of each type that are shown one by one: those of the first sequences."""

CLIPPED = 0.4
"""The part of the path that is shown of plateaus, as in the paper."""

ANYWHERE = Region(-np.inf, np.inf)

DIRECTIONS = {"real": "real-difference", "cov-random": TARGET}
"""What the examples lead to."""


def examples(results: Results) -> Chart:
    """A few curves toward real and random activations with their steepest steps, and the means over all."""
    curves = results["absolute"]
    step = Axis(f"step (of {step_length(curves):.3g} L2)")
    readouts = {name: readout_of(curves, STATISTICS[name].readout) for name in ("ms-absolute", "kl-ms-absolute")}
    panels = [
        Panel("", step, Axis(axis_label(curves[readout])), _examples(results, statistic, readout))
        for statistic, readout in readouts.items()
    ]
    return Chart((tuple(panels),))


def _examples(results: Results, statistic: str, readout: str) -> tuple[Line | Points, ...]:
    curves, table = results["absolute"], results.table("absolute")
    marks: list[Line | Points] = []
    for kind, direction in DIRECTIONS.items():
        values, steepest = read(curves, readout, direction), sample(results, statistic, kind)
        look = style(kind)._replace(marker="", linestyle="solid")
        shown = np.flatnonzero(np.isfinite(steepest.value))[:EXAMPLES]
        marks += [Line(kind, np.arange(values.shape[1], dtype=float), values[one], look) for one in shown]
        marks.append(_dots(kind, curves, values[shown], Shape(*(part[shown] for part in steepest))))
        rows = table[(table.readout == readout) & (table.direction == direction)].sort_values("step")
        y, low, high = (rows[name].to_numpy(float) for name in ("mean", "low", "high"))
        dashed = look._replace(linestyle=(0.0, (4.0, 1.6)))
        marks.append(Line(f"{kind}, mean", np.arange(len(y), dtype=float), y, dashed, low, high))
    return tuple(marks)


def _dots(kind: str, curves: xr.Dataset, values: np.ndarray, steepest: Shape) -> Points:
    at = steepest.value.astype(int)
    texts = tuple(f"sequence {number}" for number in curves.sequence.values[: len(at)])
    return Points(f"{kind}, MS step", steepest.value, values[np.arange(len(at)), at], style(kind), texts=texts)


def distribution(*names: str, part: float = 1.0) -> Callable[[Results], Chart]:
    """Counts and cumulative parts of some statistics, a row each, by type; so far along the path."""

    def chart(results: Results) -> Chart:
        return Chart(tuple(_row(results, name, part) for name in names), share=())

    return chart


def _row(results: Results, name: str, part: float) -> tuple[Panel, ...]:
    statistic, found = STATISTICS[name], samples(results, name)
    censored = [int(shape.censored.sum()) for shape in found.values()]
    title = f"censored: {', '.join(map(str, censored))}" if any(censored) else ""
    counts, cumulative = (
        replace(panel, x=replace(panel.x, limits=(0.0, part * STEPS)))
        for panel in distribution_panels(found, statistic.label)
    )
    return counts, replace(cumulative, title=title)


def distances(results: Results) -> Chart:
    """KS distance of each type from real activations, by statistic.

    Intervals are Student's, with the bootstrap's standard error: KS distances are never negative, so that those of
    bootstrap samples of equal distributions lie above the one that they are drawn around, and BCa fails.
    """
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name, statistic in STATISTICS.items():
        for kind in samples(results, name):
            if kind != "real":
                one = estimate(distance(results, name, kind, ANYWHERE), 1)
                found.setdefault(kind, {})[statistic.label] = (one.value, max(one.joint_low, 0.0), one.joint_high)
    bars = []
    for kind, by_label in found.items():
        y, low, high = (np.array(column) for column in zip(*by_label.values(), strict=True))
        bars.append(Bars(kind, tuple(by_label), y, style(kind), low, high))
    return Chart(((Panel("", Axis(""), Axis("KS distance from real activations"), tuple(bars)),),))
