"""Panel placement in an interactive figure: heights in pixels, widths as fractions of the figure's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from tiltmeter.reports.charts.chart import Bars, Chart, Panel, Surface, Triangle
from tiltmeter.reports.charts.layout import (
    AXIS_NAMES,
    AxisName,
    Cell,
    categories,
    cells,
    drawn_axis,
    has,
    is_horizontal,
    legend,
    shares_axis_label,
)

AxesKind = Literal["xy", "scene", "ternary"]
TITLE, LABEL, GAP = 28, 58, 20
"""Heights in pixels: a panel's title, tick labels and axis label below it, and the gap between bare panels."""
LONGEST = 34
"""Characters per line of a category name."""
WIDTH = 880
"""Figure width in pixels for which text is wrapped."""
_BUTTONS, _TOOLS, _ENTRY = 50, 34, 21


class PanelPlace(NamedTuple):
    """Position of a panel, as fractions of the plot from the left and bottom, and the names of its axes."""

    kind: AxesKind
    number: int
    """Index among panels of its kind, from 1."""
    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    height: int
    """Approximate width in pixels."""

    @property
    def side(self) -> float:
        """Approximate side, in pixels, of a triangle placed here with names at its corners."""
        return min(0.72 * self.width, 0.88 * self.height)

    def axis_id(self, name: str) -> str:
        """Return plotly's name of an axis: `xaxis`, `xaxis2`, `scene3`. Plotly omits the 1."""
        return f"{name}{self.number if self.number > 1 else ''}"


class Frame(NamedTuple):
    """All panel positions, and the margins around them in pixels."""

    places: dict[Cell, PanelPlace]
    plot: int
    """Height of all panels with the gaps between them."""
    above: int
    below: int


def frame(chart: Chart, buttons: bool) -> Frame:
    """Place the panels of a chart, with room above for any buttons and below for the legend."""
    columns = chart.columns
    heights = [max(_height(panel, columns) for panel in row) for row in chart.rows]
    titles = [TITLE if any(panel.title for panel in row) else 0 for row in chart.rows]
    below = [LABEL if _labelled(chart, row) else GAP for row in range(len(heights))]
    tops = [sum(heights[:row]) + sum(titles[1 : row + 1]) + sum(below[:row]) for row in range(len(heights))]
    plot = tops[-1] + heights[-1]
    rows = [(max(0.0, 1 - (top + height) / plot), 1 - top / plot) for top, height in zip(tops, heights, strict=True)]
    above = titles[0] + (_BUTTONS if buttons else _TOOLS) + (TITLE if chart.title else 0)
    return Frame(dict(_places(chart, rows, heights)), plot, above, LABEL + _legend_height(chart))


def least_width(chart: Chart) -> int:
    """Width in pixels below which the figure scrolls instead of shrinking, so side-by-side panels stay legible."""
    if any(axes_kind(panel) != "xy" for panel in chart.panels):
        return min(420 * chart.columns, WIDTH + 40)
    return min(300 * chart.columns, WIDTH + 40) if chart.columns > 1 else 0


def _places(chart: Chart, rows: list[tuple[float, float]], heights: list[int]) -> Iterator[tuple[Cell, PanelPlace]]:
    columns = chart.columns
    gap = max([_room_left(chart, cell) for cell in cells(chart) if cell[1]], default=0) / WIDTH
    width = (1 - gap * (columns - 1)) / columns
    counts: Counter[str] = Counter()
    for (row, column), panel in cells(chart).items():
        kind = axes_kind(panel)
        counts[kind] += 1
        left = column * (width + gap)
        across = (left, min(1.0, left + width))
        yield (row, column), PanelPlace(kind, counts[kind], across, rows[row], width * WIDTH, heights[row])


def axes_kind(panel: Panel) -> AxesKind:
    """Return the kind of axes a panel needs."""
    return "scene" if has(panel, Surface) else "ternary" if has(panel, Triangle) else "xy"


def _labelled(chart: Chart, row: int) -> bool:
    """Return whether a row has axis labels below it."""
    return any(_says(chart, (row, column), "x") for column in range(len(chart.rows[row])))


def _room_left(chart: Chart, cell: Cell) -> int:
    """Pixels for tick labels and axis label at the left of a panel."""
    panel = cells(chart)[cell]
    if axes_kind(panel) != "xy" or not _says(chart, cell, "y"):
        return 26
    longest = max(map(len, categories(panel)), default=0) if is_horizontal(panel) else 0
    return max(88, 30 + 7 * min(longest, LONGEST))


def _says(chart: Chart, cell: Cell, paper: AxisName) -> bool:
    ways = [axis_name for axis_name in AXIS_NAMES if drawn_axis(cells(chart)[cell], axis_name) == paper]
    return not shares_axis_label(chart, cell, ways[0])


def _height(panel: Panel, columns: int) -> int:
    if axes_kind(panel) != "xy":
        return min(420, 60 + WIDTH // columns)
    if is_horizontal(panel):
        bars = sum(len(mark.categories) for mark in panel.marks if isinstance(mark, Bars))
        return 30 + max(26 * len(categories(panel)), 15 * bars)
    return {1: 360, 2: 300}.get(columns, 250)


def _legend_height(chart: Chart) -> int:
    wide = sum(7 * min(len(name), 60) + 60 for name in legend(chart))
    return _ENTRY * (1 + math.ceil(wide / WIDTH)) if wide else 0
