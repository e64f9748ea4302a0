"""A figure as data: panels in a grid, and marks in them. Nothing is drawn here.

What a figure shows is said once, and drawn twice (`drawing.py` for papers, `interactive.py` for the report) and written
once more as a table (`chart_tables.py`), so that no picture can differ from its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts.styles import Style

Numbers = Float[np.ndarray, " point"]


@dataclass(frozen=True)
class Line:
    """A curve, with its interval as a band where it has one. NaN leaves a gap."""

    name: str
    """Entry of the legend; marks of one name are switched on and off together, in all panels."""
    x: Numbers
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None
    thin: bool = False
    """One of many single curves: drawn thin and pale, behind means."""


@dataclass(frozen=True)
class Points:
    """Dots, with a text each for the reader who points at them, and whiskers where they have an interval."""

    name: str
    x: Numbers
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bars:
    """A bar for each category, with its interval as a whisker; several marks of a panel stand side by side."""

    name: str
    categories: tuple[str, ...]
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, as an outline with a pale filling."""

    name: str
    edges: Float[np.ndarray, " edge"]
    """One more than there are counts, ascending."""
    counts: Float[np.ndarray, " bin"]
    style: Style


@dataclass(frozen=True)
class HeatMap:
    """A colour at each point of a grid; NaN is left blank."""

    name: str
    """What the colour means, with its units; the label of the colour bar."""
    x: Float[np.ndarray, " column"]
    y: Float[np.ndarray, " row"]
    z: Float[np.ndarray, "row column"]


@dataclass(frozen=True)
class Surface:
    """The same grid as a surface in three dimensions, with dots on it that have names."""

    name: str
    x: Float[np.ndarray, " column"]
    y: Float[np.ndarray, " row"]
    z: Float[np.ndarray, "row column"]
    marked: tuple[tuple[str, float, float, float], ...] = ()


@dataclass(frozen=True)
class Triangle:
    """A colour at each of many points inside a triangle, by their three weights, which sum to one."""

    name: str
    """What the colour means, with its units."""
    weights: Float[np.ndarray, "point 3"]
    values: Numbers
    corners: tuple[str, str, str]
    """Names of the corners: top, left, right."""


@dataclass(frozen=True)
class Rule:
    """A thin straight line across the panel, with a word beside it."""

    at: float
    across: Literal["x", "y"] = "x"
    """Which axis `at` is a value of."""
    text: str = ""
    style: Style | None = None


Mark = Line | Points | Bars | Histogram | HeatMap | Surface | Triangle | Rule


@dataclass(frozen=True)
class Axis:
    """An axis: its label with units, and how it runs."""

    label: str
    log: bool = False
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """Marks on one pair of axes."""

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """Panels in rows.

    Raises:
        TiltmeterError: no rows, or a row without panels.
    """

    rows: tuple[tuple[Panel, ...], ...]
    share: tuple[Literal["x", "y-of-row", "y"], ...] = field(default=("x", "y-of-row"))
    """Which axes panels have in common."""
    title: str = ""
    """Above all panels."""

    def __post_init__(self) -> None:
        if not self.rows or not all(self.rows):
            raise TiltmeterError("a figure needs at least one panel in each row; leave empty rows out.")

    @property
    def columns(self) -> int:
        """How many panels stand side by side."""
        return max(map(len, self.rows))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, row after row."""
        return tuple(panel for row in self.rows for panel in row)


def in_rows(panels: Sequence[Panel], columns: int) -> tuple[tuple[Panel, ...], ...]:
    """Panels in rows of so many columns."""
    return tuple(tuple(panels[begin : begin + columns]) for begin in range(0, len(panels), columns))


def panel_names(chart: Chart) -> list[str]:
    """A name for each panel, row after row, that no other has: its column's title, its quantity, its x, its number."""
    tops = [next((panel.title for panel in column if panel.title), "") for column in _columns(chart)]
    titles = [panel.title or tops[at] for row in chart.rows for at, panel in enumerate(row)]
    labels = ([panel.y.label for panel in chart.panels], [panel.x.label for panel in chart.panels])
    for more in (*labels, [str(number) for number in range(1, len(titles) + 1)]):
        if len(set(titles)) < len(titles):
            titles = [": ".join(filter(None, pair)) for pair in zip(titles, more, strict=True)]
    return titles


def _columns(chart: Chart) -> list[list[Panel]]:
    return [[row[at] for row in chart.rows if at < len(row)] for at in range(chart.columns)]
