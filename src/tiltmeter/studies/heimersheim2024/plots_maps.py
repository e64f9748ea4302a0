"""How the maps of Heimersheim & Mendel 2024 are drawn: triangles of directions, and the plane of three activations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.perturb.blends import parse_blend
from tiltmeter.reports.charts.chart import Axis, Chart, HeatMap, Panel, Points, Surface, Triangle
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.estimands import late_l2
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD, triangle_times
from tiltmeter.studies.results import Results

SINGLE = 3
"""Prompts whose own triangles are drawn, as the post draws one."""

CORNERS = {
    "triangle-random": ("random", "random", "random"),
    "triangle-real": ("real", "random", "random"),
}
"""Names of corners: top, left, right."""

ACTIVATIONS = {"this prompt": (0.0, 0.0), "another": (1.0, 0.0), "a third": (0.0, 1.0)}
"""Where the three activations lie in their plane."""


def triangles(results: Results) -> Chart:
    """Rows: three random corners, one real corner. Columns: median of all prompts, single prompts."""
    angle = f"angle at KL {THRESHOLD:g}, degrees"
    rows = []
    for experiment, corners in CORNERS.items():
        found = triangle_times(results[experiment], "absolute")
        weights, angles = np.array(list(found)), np.stack(list(found.values()))
        median = np.median(angles[:, ~np.isnan(angles).any(axis=0)], axis=1)
        columns = {f"median of {angles.shape[1]} prompts": (f"median {angle}", median)}
        columns |= {f"prompt {number}": (angle, angles[:, number]) for number in range(min(SINGLE, angles.shape[1]))}
        rows.append(
            tuple(
                Panel(title, Axis(""), Axis(""), (Triangle(name, weights, _finite(values), corners),))
                for title, (name, values) in columns.items()
            )
        )
    return Chart(tuple(rows), share=())


class Grid(NamedTuple):
    """A readout on a plane."""

    weights: Float[np.ndarray, " weight"]
    values: Float[np.ndarray, "row column"]


def plane(results: Results) -> Chart:
    """Rows: as a surface, as a map. Columns: KL, L2 after the last block. Of the first prompt."""
    curves = results["plane"]
    names = ("kl", late_l2(curves))
    grids = {axis_label(curves[name]): on_plane(curves, name, 0) for name in names}
    x, y = Axis("weight of another activation"), Axis("weight of a third")
    surfaces = tuple(Panel("", x, y, (_surface(name, grid),)) for name, grid in grids.items())
    return Chart((surfaces, tuple(Panel("", x, y, _map(name, grid)) for name, grid in grids.items())), share=())


def on_plane(curves: xr.Dataset, readout: str, sequence: int) -> Grid:
    """A readout of one prompt by the weights of the two other activations, x for the first.

    The prompt's own activation lies at no weight of either, where nothing is moved: zero.
    """
    values = curves[readout].isel(sequence=sequence, step=0).to_series()
    places = {tuple(weight for weight, _ in parse_blend(str(name))): float(value) for name, value in values.items()}
    places[0.0, 0.0] = 0.0
    weights = np.array(sorted({place[0] for place in places}))
    return Grid(weights, np.array([[places[first, second] for first in weights] for second in weights]))


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


def _finite(values: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
    return np.where(np.isfinite(values), values, np.nan)
