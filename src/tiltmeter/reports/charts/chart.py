"""A figure as data: panels in a grid, and marks in them. Nothing is drawn here.

A figure is needed three times: as a picture for papers (`mpl`), as an interactive plot in the report (`plotly`) and as
a table (`reports.tables.chart`). All three are made from this one description, so that they cannot disagree, and tests
can check a figure's numbers without drawing it.
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
    """Entry of the legend; marks of one name are toggled together, in all panels."""
    x: Numbers
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None
    thin: bool = False
    """One of many individual curves: drawn thin and pale, behind means."""


@dataclass(frozen=True)
class Points:
    """Dots, with hover texts, and whiskers where they have an interval."""

    name: str
    x: Numbers
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bars:
    """A bar for each category, with its interval as a whisker; bars of one category are drawn side by side."""

    name: str
    categories: tuple[str, ...]
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, as a filled outline."""

    name: str
    edges: Float[np.ndarray, " edge"]
    """Bin edges, ascending; one more than there are counts."""
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
    """The same grid as a surface in three dimensions, with named dots on it."""

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
    """A thin reference line across the panel, with a label."""

    at: float
    across: Literal["x", "y"] = "x"
    """The axis of which `at` is a value."""
    text: str = ""
    style: Style | None = None


Mark = Line | Points | Bars | Histogram | HeatMap | Surface | Triangle | Rule


@dataclass(frozen=True)
class Axis:
    """An axis: its label with units, scale and limits."""

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
    """Axes that panels share."""
    title: str = ""
    """Above all panels."""

    def __post_init__(self) -> None:
        if not self.rows or not all(self.rows):
            raise TiltmeterError("a figure needs at least one panel in each row; leave empty rows out.")

    @property
    def columns(self) -> int:
        """Number of panels side by side."""
        return max(map(len, self.rows))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, row by row."""
        return tuple(panel for row in self.rows for panel in row)


def in_rows(panels: Sequence[Panel], columns: int) -> tuple[tuple[Panel, ...], ...]:
    """Arrange panels in rows of this many columns."""
    return tuple(tuple(panels[begin : begin + columns]) for begin in range(0, len(panels), columns))


def panel_names(chart: Chart) -> list[str]:
    """Unique names of all panels, row by row: the column's title; if needed also the y label, x label and number."""
    tops = [next((panel.title for panel in column if panel.title), "") for column in _columns(chart)]
    titles = [panel.title or tops[at] for row in chart.rows for at, panel in enumerate(row)]
    labels = ([panel.y.label for panel in chart.panels], [panel.x.label for panel in chart.panels])
    for more in (*labels, [str(number) for number in range(1, len(titles) + 1)]):
        if len(set(titles)) < len(titles):
            titles = [": ".join(filter(None, pair)) for pair in zip(titles, more, strict=True)]
    return titles


def _columns(chart: Chart) -> list[list[Panel]]:
    return [[row[at] for row in chart.rows if at < len(row)] for at in range(chart.columns)]
