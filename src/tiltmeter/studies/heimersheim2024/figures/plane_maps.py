"""Section 1: readouts on the plane through three real activations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.perturb.names import DirectionName
from tiltmeter.reports.charts.chart import Axis, Chart, HeatMap, Panel, Points, Surface
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.styles import style
from tiltmeter.reports.tables.format import three_digits
from tiltmeter.studies.estimands import late_l2
from tiltmeter.studies.heimersheim2024.figures.wording import TITLE
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

ACTIVATIONS = {"this prompt": (0.0, 0.0), "another": (1.0, 0.0), "a third": (0.0, 1.0)}
"""Where the three activations lie in their plane."""

PARTS = (0.25, 0.5, 0.75)
"""Fractions of the way to another activation."""


class Grid(NamedTuple):
    """A readout on a plane."""

    weights: Float[np.ndarray, " weight"]
    values: Float[np.ndarray, "row column"]


def on_plane(curves: xr.Dataset, readout: str, sequence: int) -> Grid:
    """A readout of one prompt by the weights of the two other activations, x for the first.

    The prompt's own activation lies at zero weight of both; nothing is perturbed there, so the readout is zero.
    """
    values = curves[readout].isel(sequence=sequence, step=0).to_series()
    terms = {str(name): DirectionName.parse(str(name)).terms for name in values.index}
    places = {tuple(weight for weight, _ in terms[str(name)]): float(value) for name, value in values.items()}
    places[0.0, 0.0] = 0.0
    weights = np.array(sorted({place[0] for place in places}))
    return Grid(weights, np.array([[places[first, second] for first in weights] for second in weights]))


def _chart(results: Results) -> Chart:
    """Rows: as a surface, as a map. Columns: KL, L2 after the last block. Of the first prompt."""
    curves = results["plane"]
    names = ("kl", late_l2(curves))
    grids = {axis_label(curves[name]): on_plane(curves, name, 0) for name in names}
    x, y = Axis("weight of another activation"), Axis("weight of a third")
    surfaces = tuple(Panel("", x, y, (_surface(name, grid),)) for name, grid in grids.items())
    return Chart((surfaces, tuple(Panel("", x, y, _map(name, grid)) for name, grid in grids.items())), share=())


def _surface(name: str, grid: Grid) -> Surface:
    marked = tuple((title, *place, grid.values[_at(grid, place)]) for title, place in ACTIVATIONS.items())
    return Surface(name, grid.weights, grid.weights, grid.values, marked)


def _map(name: str, grid: Grid) -> tuple[HeatMap, Points]:
    x, y = np.array(list(ACTIVATIONS.values())).T
    dots = Points("real activations", x, y, style("clean"), texts=tuple(ACTIVATIONS))
    return HeatMap(name, grid.weights, grid.weights, grid.values), dots


def _at(grid: Grid, place: tuple[float, float]) -> tuple[int, int]:
    column, row = (int(np.argmin(np.abs(grid.weights - value))) for value in place)
    return row, column


def _finding(results: Results) -> str:
    """KL on the way to another activation, as a fraction of KL at its end."""
    curves = results["plane"]
    grids = [on_plane(curves, "kl", number) for number in range(curves.sizes["sequence"])]
    weights, zero = grids[0].weights, int(np.argmin(np.abs(grids[0].weights)))
    ways = np.stack([way for grid in grids for way in (grid.values[zero], grid.values[:, zero])])
    mean = np.interp((*PARTS, 1.0), weights, np.nanmean(ways, axis=0))
    if not mean[-1] > 0:
        return f"KL is {three_digits(float(mean[-1]))} at the other activation, so no fraction of it is defined."
    fractions = ", ".join(f"{100 * part:.0f} %" for part in mean[:-1] / mean[-1])
    return (
        f"A quarter, half and three quarters of the way to another activation, KL is {fractions} of its "
        f"{mean[-1]:.3g} nats there (means over both ways, {len(grids)} {'prompt' if len(grids) == 1 else 'prompts'})."
    )


PLANE = PaperFigure(
    title=f"{TITLE}, section 1: the plane of three real activations",
    caption="KL(clean ‖ perturbed) (left) and L2 distance after the last block (right) with x + a (r - x) + b (s - x) "
    "in the place of x, where r and s are activations of two other prompts. One prompt; above as a surface, below as "
    "a map.",
    claimed="There are plateaus around the real activations, with outputs changing less per shift in activations.",
    needs=("plane",),
    chart=_chart,
    finding=_finding,
)
