"""Figure 1: a few curves toward real and random activations, and the means over all sequences."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import estimate
from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel, Points
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.comparisons import too_few
from tiltmeter.studies.estimands import mean, read, readout_name
from tiltmeter.studies.giglemiani2024.curve_statistics import STATISTICS, sample, step_length
from tiltmeter.studies.giglemiani2024.estimands import ANYWHERE
from tiltmeter.studies.giglemiani2024.experiments import TARGET
from tiltmeter.studies.giglemiani2024.figures.wording import ABSOLUTE_STEP, SETUP, TITLE, mean_step
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

EXAMPLES = 3
"""Curves of each type that are drawn individually: those of the first sequences."""

SHOWN_STATISTICS = ("ms-absolute", "kl-ms-absolute")
"""A panel each: the steepest rise of L2, and that of KL."""

DIRECTIONS = {"real": "real-difference", "cov-random": TARGET}
"""The types of target that are compared, and their directions."""


def _chart(results: Results) -> Chart:
    curves = results["absolute"]
    step = Axis(f"step (of {step_length(curves):.3g} L2)")
    readouts = {name: readout_name(curves, STATISTICS[name].readout) for name in SHOWN_STATISTICS}
    panels = [
        Panel("", step, Axis(axis_label(curves[readout])), _marks(results, statistic, readout))
        for statistic, readout in readouts.items()
    ]
    return Chart((tuple(panels),))


def _marks(results: Results, statistic: str, readout: str) -> tuple[Line | Points, ...]:
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


def _finding(results: Results) -> str:
    """Where curves toward real and random activations end, and their mean MS steps."""
    curves = results["absolute"]
    if few := too_few(curves):
        return few
    found = []
    for name in SHOWN_STATISTICS:
        readout = readout_name(curves, STATISTICS[name].readout)
        ends = [
            f"{kind} {estimate(results.with_documents(last), 1)}"
            for kind, direction in DIRECTIONS.items()
            for last in (mean(kind, read(curves, readout, direction)[:, -1], ANYWHERE),)
        ]
        steepest = [f"{kind} {mean_step(results, sample(results, name, kind))}" for kind in DIRECTIONS]
        found.append(
            f"Mean {curves[readout].attrs['long_name']} ({curves[readout].attrs['units']}) at the last step: "
            f"{', '.join(ends)}; mean MS step: {', '.join(steepest)}."
        )
    return " ".join([f"A step is {step_length(curves):.3g} L2.", *found])


FIGURE_1 = PaperFigure(
    title=f"{TITLE}, Figure 1: curves toward real and random activations",
    caption=f"L2 distance after the last block (left) and KL of the next-token prediction (right). {SETUP} Solid: "
    "curves of the first three sequences, with dots at their MS steps (where the steepest rise ends). Dashed: means "
    f"over all sequences, with 95 % intervals over sequences. {ABSOLUTE_STEP}",
    claimed="Curves begin with a linear part (the activation plateau), followed by a sharp rise (the blowup), which "
    "comes earlier toward real than toward random activations.",
    needs=("absolute", "relative"),
    chart=_chart,
    finding=_finding,
)
