"""Charts as data: a grid of panels that contain marks. Nothing is drawn here.

Each figure has three forms: an image for papers (`mpl`), an interactive plot in the report (`plotly`) and a table
(`reports.tables.chart`). All three are built from this one description, so they cannot disagree, and tests can check a
figure's numbers without drawing it.
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
    """A curve, with its interval, if any, as a band. NaN leaves a gap."""

    name: str
    """Legend entry. Marks with the same name are toggled together, in all panels."""
    x: Numbers
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None
    thin: bool = False
    """Whether this is one of many individual curves, which are drawn thin and pale behind means."""
    group: str = ""
    """Lines of a group are listed together in the legend, in a column of their own if there is room."""


@dataclass(frozen=True)
class Points:
    """Dots, with texts, and whiskers if they have intervals."""

    name: str
    x: Numbers
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None
    texts: tuple[str, ...] = ()
    """Of each point, shown on hover."""
    labels: tuple[str, ...] = ()
    """Of each point, drawn beside it."""


@dataclass(frozen=True)
class Bars:
    """One bar per category, with its interval as a whisker. Bars of one category are drawn side by side."""

    name: str
    categories: tuple[str, ...]
    y: Numbers
    style: Style
    low: Numbers | None = None
    high: Numbers | None = None


@dataclass(frozen=True)
class Dots(Bars):
    """One dot per category, with its interval as a whisker: bars for an axis that need not begin at zero."""


@dataclass(frozen=True)
class Histogram:
    """Counts per bin, drawn as an outline, filled where few overlap."""

    name: str
    edges: Float[np.ndarray, " edge"]
    """Bin edges in ascending order, one more than counts."""
    counts: Float[np.ndarray, " bin"]
    style: Style


@dataclass(frozen=True)
class HeatMap:
    """A colour at each point of a grid. NaN is left blank."""

    name: str
    """Label of the colour bar: the quantity shown by colour, with units."""
    x: Float[np.ndarray, " column"]
    y: Float[np.ndarray, " row"]
    z: Float[np.ndarray, "row column"]


@dataclass(frozen=True)
class Surface:
    """A grid drawn as a surface in three dimensions, with named dots on it."""

    name: str
    x: Float[np.ndarray, " column"]
    y: Float[np.ndarray, " row"]
    z: Float[np.ndarray, "row column"]
    marked: tuple[tuple[str, float, float, float], ...] = ()


@dataclass(frozen=True)
class Triangle:
    """A colour at points inside a triangle, placed by three weights that sum to one."""

    name: str
    """The quantity shown by colour, with units."""
    weights: Float[np.ndarray, "point 3"]
    values: Numbers
    corners: tuple[str, str, str]
    """Names of the corners: top, left, right."""


@dataclass(frozen=True)
class Rule:
    """A thin reference line across the panel, with a label."""

    at: float
    across: Literal["x", "y"] = "x"
    """The axis on which `at` lies."""
    text: str = ""
    style: Style | None = None


Mark = Line | Points | Bars | Histogram | HeatMap | Surface | Triangle | Rule


@dataclass(frozen=True)
class Axis:
    """An axis: label with units, scale and limits."""

    label: str
    log: bool = False
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """A set of marks on one pair of axes."""

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """A grid of panels, given row by row.

    Raises:
        TiltmeterError: there are no rows, or a row has no panels.
    """

    rows: tuple[tuple[Panel, ...], ...]
    share: tuple[Literal["x", "y-of-row", "y"], ...] = field(default=("x", "y-of-row"))
    """Which axes the panels share."""
    title: str = ""
    """Title above all panels."""

    def __post_init__(self) -> None:
        if not self.rows or not all(self.rows):
            raise TiltmeterError("a figure needs at least one panel in each row; leave empty rows out.")

    @property
    def columns(self) -> int:
        """Number of panels in the longest row."""
        return max(map(len, self.rows))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, row by row."""
        return tuple(panel for row in self.rows for panel in row)


def in_rows(panels: Sequence[Panel], columns: int) -> tuple[tuple[Panel, ...], ...]:
    """Arrange panels into rows with this many columns."""
    return tuple(tuple(panels[begin : begin + columns]) for begin in range(0, len(panels), columns))


def panel_names(chart: Chart) -> list[str]:
    """Return unique names of all panels, row by row: the column title, with y label, x label and number if needed."""
    tops = [next((panel.title for panel in column if panel.title), "") for column in _columns(chart)]
    titles = [panel.title or tops[at] for row in chart.rows for at, panel in enumerate(row)]
    labels = ([panel.y.label for panel in chart.panels], [panel.x.label for panel in chart.panels])
    for more in (*labels, [str(number) for number in range(1, len(titles) + 1)]):
        if len(set(titles)) < len(titles):
            titles = [": ".join(filter(None, pair)) for pair in zip(titles, more, strict=True)]
    return titles


def _columns(chart: Chart) -> list[list[Panel]]:
    return [[row[at] for row in chart.rows if at < len(row)] for at in range(chart.columns)]
