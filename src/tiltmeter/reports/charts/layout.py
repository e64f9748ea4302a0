"""How a chart is laid out, however it is drawn: shared axes, horizontal bars, legend entries, colour ranges."""

from __future__ import annotations

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
"""Row and column of a panel."""
AxisName = Literal["x", "y"]
Named = Line | Points | Bars | Histogram
"""Marks with an entry in the legend."""
Range = tuple[float, float]

AXIS_NAMES: tuple[AxisName, AxisName] = ("x", "y")
_ROOM = 44
"""Letters that fit below upright bars."""


class SharedAxis(NamedTuple):
    """What panels that share an axis have in common; equal values mean a shared axis."""

    axis_name: AxisName
    row: int | None
    axis: Axis
    categories: tuple[str, ...]
    horizontal: bool


def cells(chart: Chart) -> dict[Cell, Panel]:
    """Panels by row and column, row by row."""
    return {(at, column): panel for at, row in enumerate(chart.rows) for column, panel in enumerate(row)}


def has(panel: Panel, *kinds: type) -> bool:
    """Whether a panel has a mark of one of these kinds."""
    return any(isinstance(mark, kinds) for mark in panel.marks)


def shared_axis(chart: Chart, cell: Cell, axis_name: AxisName) -> SharedAxis | None:
    """What the panels that share an axis with this one have alike; None where it shares none."""
    panel = cells(chart)[cell]
    in_row = axis_name == "y" and "y" not in chart.share
    if ("y-of-row" if in_row else axis_name) not in chart.share or has(panel, Surface, Triangle):
        return None
    axis, names = (panel.x, tuple(categories(panel))) if axis_name == "x" else (panel.y, ())
    return SharedAxis(axis_name, cell[0] if in_row else None, axis, names, is_horizontal(panel))


def shares_axis_label(chart: Chart, cell: Cell, axis_name: AxisName) -> bool:
    """Whether the next panel below (to the left) has the same axis, so that its label need not stand here."""
    row, column = cell
    own = shared_axis(chart, cell, axis_name)
    other = (row + 1, column) if drawn_axis(cells(chart)[cell], axis_name) == "x" else (row, column - 1)
    return own is not None and other in cells(chart) and shared_axis(chart, other, axis_name) == own


def drawn_axis(panel: Panel, axis_name: AxisName) -> AxisName:
    """The axis of the paper that an axis of the panel is: where bars lie, their names stand at the left."""
    return ("y" if axis_name == "x" else "x") if is_horizontal(panel) else axis_name


def categories(panel: Panel) -> list[str]:
    """The categories of all bars, in the order they are named in."""
    return list(dict.fromkeys(name for mark in panel.marks if isinstance(mark, Bars) for name in mark.categories))


def is_horizontal(panel: Panel) -> bool:
    """Whether bars are drawn horizontally, because their names would not fit below upright ones."""
    names = categories(panel)
    return bool(names) and (len(names) > 8 or len(names) * max(map(len, names)) > _ROOM)


class BarPositions(NamedTuple):
    """Centres and widths of the bars of a mark, in units of categories."""

    centre: Float[np.ndarray, " bar"]
    width: Float[np.ndarray, " bar"]


def bar_positions(panel: Panel, mark: Bars) -> BarPositions:
    """Positions of a mark's bars; bars of one category are side by side."""
    names = categories(panel)
    marks = [one for one in panel.marks if isinstance(one, Bars)]
    beside = [[one for one in marks if name in one.categories] for name in mark.categories]
    width = np.array([0.8 / len(group) for group in beside])
    rank = np.array([next(at for at, one in enumerate(group) if one is mark) for group in beside])
    place = np.array([float(names.index(name)) for name in mark.categories])
    return BarPositions(place - 0.4 + width * (rank + 0.5), 0.92 * width)


def legend(chart: Chart) -> dict[str, Named]:
    """The mark that stands for each name, a mean rather than the single curves of its name.

    A bar that stands on its own name needs no other.
    """
    marks = [mark for panel in chart.panels for mark in panel.marks if isinstance(mark, Named)]
    named = [mark for mark in marks if not (isinstance(mark, Bars) and set(mark.categories) <= {mark.name})]
    standing = {mark.name: mark for mark in reversed(sorted(named, key=is_thin))}
    return {name: standing[name] for name in dict.fromkeys(mark.name for mark in named)}


def is_thin(mark: Mark) -> bool:
    """Whether a mark is one of many individual curves."""
    return isinstance(mark, Line) and mark.thin


def is_right_half(panel: Panel, rule: Rule) -> bool:
    """Whether an upright rule stands in the right half of the panel, where its word has room at its left."""
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
    """The smallest and largest value of each quantity that is shown by colour: equal names have one scale of colours.

    Where a quantity has one value alone, a range about it; where it has none, 0 to 1.
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
    """A name cut to this length in the middle: names mostly differ at the end."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[most // 3 + 1 - most :]}"


def _range(values: np.ndarray) -> Range:
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0))
