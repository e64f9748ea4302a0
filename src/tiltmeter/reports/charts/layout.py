"""Layout rules common to both renderers: shared axes, horizontal bars, legend entries, colour ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from tiltmeter.reports.charts.chart import (
    Axis,
    Bars,
    Chart,
    HeatMap,
    Histogram,
    Line,
    Mark,
    Panel,
    Points,
    Rule,
    Surface,
    Triangle,
)

Cell = tuple[int, int]
"""Row and column index of a panel."""
AxisName = Literal["x", "y"]
Named = Line | Points | Bars | Histogram
"""Marks that have a legend entry."""
Range = tuple[float, float]

AXIS_NAMES: tuple[AxisName, AxisName] = ("x", "y")
_FEW_BANDS = 4
_ROOM = 44
"""Characters of a category name that fit below vertical bars."""


class SharedAxis(NamedTuple):
    """Identity of a shared axis: panels with equal values share it."""

    axis_name: AxisName
    row: int | None
    axis: Axis
    categories: tuple[str, ...]
    horizontal: bool


def cells(chart: Chart) -> dict[Cell, Panel]:
    """Return the panels keyed by row and column, row by row."""
    return {(at, column): panel for at, row in enumerate(chart.rows) for column, panel in enumerate(row)}


def has(panel: Panel, *kinds: type) -> bool:
    """Return whether a panel has a mark of one of these kinds."""
    return any(isinstance(mark, kinds) for mark in panel.marks)


def shared_axis(chart: Chart, cell: Cell, axis_name: AxisName) -> SharedAxis | None:
    """Return the identity of the axis that this panel shares with others, or None."""
    panel = cells(chart)[cell]
    in_row = axis_name == "y" and "y" not in chart.share
    if ("y-of-row" if in_row else axis_name) not in chart.share or has(panel, Surface, Triangle):
        return None
    axis, names = (panel.x, tuple(categories(panel))) if axis_name == "x" else (panel.y, ())
    return SharedAxis(axis_name, cell[0] if in_row else None, axis, names, is_horizontal(panel))


def shares_axis_label(chart: Chart, cell: Cell, axis_name: AxisName) -> bool:
    """Return whether the next panel below (or to the left) has the same axis and so carries the label instead."""
    row, column = cell
    own = shared_axis(chart, cell, axis_name)
    other = (row + 1, column) if drawn_axis(cells(chart)[cell], axis_name) == "x" else (row, column - 1)
    return own is not None and other in cells(chart) and shared_axis(chart, other, axis_name) == own


def drawn_axis(panel: Panel, axis_name: AxisName) -> AxisName:
    """Map a panel's axis to the drawn one. Horizontal bars swap them, with category names at the left."""
    return ("y" if axis_name == "x" else "x") if is_horizontal(panel) else axis_name


def categories(panel: Panel) -> list[str]:
    """Return the categories of all bars, in order of first appearance."""
    return list(dict.fromkeys(name for mark in panel.marks if isinstance(mark, Bars) for name in mark.categories))


def is_horizontal(panel: Panel) -> bool:
    """Return whether bars are horizontal, because their names would not fit below vertical ones."""
    names = categories(panel)
    return bool(names) and (len(names) > 8 or len(names) * max(map(len, names)) > _ROOM)


class BarPositions(NamedTuple):
    """Centres and width of a mark's bars, in units of categories."""

    centre: Float[np.ndarray, " bar"]
    width: Float[np.ndarray, " bar"]


def bar_positions(panel: Panel, mark: Bars) -> BarPositions:
    """Place a mark's bars. Bars of one category are side by side."""
    names = categories(panel)
    marks = [one for one in panel.marks if isinstance(one, Bars)]
    beside = [[one for one in marks if name in one.categories] for name in mark.categories]
    width = np.array([0.8 / len(group) for group in beside])
    rank = np.array([next(at for at, one in enumerate(group) if one is mark) for group in beside])
    place = np.array([float(names.index(name)) for name in mark.categories])
    return BarPositions(place - 0.4 + width * (rank + 0.5), 0.92 * width)


def legend(chart: Chart) -> dict[str, Named]:
    """Choose the mark that represents each name in the legend: a mean rather than individual curves.

    A bar whose category is its own name needs no legend entry.
    """
    marks = [mark for panel in chart.panels for mark in panel.marks if isinstance(mark, Named)]
    named = [mark for mark in marks if not (isinstance(mark, Bars) and set(mark.categories) <= {mark.name})]
    standing = {mark.name: mark for mark in reversed(sorted(named, key=is_thin))}
    return {name: standing[name] for name in dict.fromkeys(mark.name for mark in named)}


def legend_groups(named: Mapping[str, Named]) -> dict[str, list[int]]:
    """Return the places in the legend of the entries of each group of lines."""
    groups: dict[str, list[int]] = {}
    for at, mark in enumerate(named.values()):
        groups.setdefault(mark.group if isinstance(mark, Line) else "", []).append(at)
    return groups


def is_thin(mark: Mark) -> bool:
    """Return whether a mark is one of many individual curves."""
    return isinstance(mark, Line) and mark.thin


def band_opacity(panel: Panel) -> float:
    """Return the opacity of bands: lower where many overlap, so that lines stay in front."""
    bands = sum(isinstance(mark, Line) and mark.low is not None for mark in panel.marks)
    return 0.18 if bands <= _FEW_BANDS else 0.1


def fill_opacity(panel: Panel) -> float:
    """Return the opacity of histograms' fill: none where more than two would overlap."""
    return 0.2 if sum(isinstance(mark, Histogram) for mark in panel.marks) <= 2 else 0.0


def is_right_half(panel: Panel, rule: Rule) -> bool:
    """Return whether a vertical rule lies in the right half of the panel, so its label fits on its left."""
    axis = panel.x if rule.across == "x" else panel.y
    known = np.concatenate([*(_extent(mark, rule.across) for mark in panel.marks), np.array([rule.at])])
    low, high = axis.limits or (float(np.nanmin(known)), float(np.nanmax(known)))
    return bool(rule.at > (np.sqrt(low * high) if axis.log and low > 0 else (low + high) / 2))


def _extent(mark: Mark, axis_name: AxisName) -> np.ndarray:
    if isinstance(mark, Histogram):
        return mark.edges
    if isinstance(mark, Bars):
        return np.append(mark.y, 0.0) if axis_name == "y" else np.empty(0)
    return (mark.x if axis_name == "x" else mark.y) if isinstance(mark, Line | Points | HeatMap) else np.empty(0)


def color_ranges(chart: Chart) -> dict[str, Range]:
    """Return the value range of each quantity shown by colour. Marks with the same quantity share one colour scale.

    A quantity with a single value gets a range around it, and one without values 0 to 1.
    """
    values: dict[str, list[np.ndarray]] = {}
    for panel in chart.panels:
        for mark in panel.marks:
            if isinstance(mark, HeatMap | Surface):
                values.setdefault(mark.name, []).append(mark.z.ravel())
            elif isinstance(mark, Triangle):
                values.setdefault(mark.name, []).append(mark.values)
    return {name: _range(np.concatenate(found)) for name, found in values.items()}


def shortened(name: str, most: int) -> str:
    """Shorten a name to this length by cutting the middle, as names mostly differ at the end."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[most // 3 + 1 - most :]}"


def _range(values: np.ndarray) -> Range:
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0))
