"""A chart drawn with matplotlib, for papers and for readers without scripts: PNG and SVG that repeat to the byte."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from tiltmeter.charts import Bars, Chart, HeatMap, Histogram, Line, Panel, Points, Surface, Triangle, color_ranges
from tiltmeter.errors import TiltmeterError
from tiltmeter.marks import PALE, categories, draw_bars, draw_mark, lies, mappable

MOST_ENTRIES = 24
"""Names that a legend has room for."""
_LETTER = 0.067
"""Width of a letter in inches."""

_LOOK: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#444444",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a file name is no formula
    "svg.fonttype": "none",
    "svg.hashsalt": "tiltmeter",
}

_Cell = tuple[int, int]


def draw(chart: Chart) -> Figure:
    """Draw a chart, with one legend below it.

    Names stand in the legend once; of more than 24 it gives the first. On a logarithmic axis nothing that is not
    positive is shown.

    Raises:
        TiltmeterError: a chart without panels.
    """
    if not chart.panels:
        raise TiltmeterError("a figure needs at least one panel; this chart has none.")
    columns = max(map(len, chart.rows))
    width = 0.9 + columns * _width(columns)
    heights = [max(_height(panel, columns) for panel in row) for row in chart.rows]
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(width, 0.5 + sum(heights)), layout=ConstrainedLayoutEngine(w_pad=0.07))
        figure.suptitle(_wrapped(chart.title, width), fontsize=10.5) if chart.title else None
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        drawn: dict[_Cell, Axes] = {}
        for cell, panel in _cells(chart).items():
            drawn[cell] = _axes(figure, grid[cell], chart, cell, drawn)
            _panel(drawn[cell], panel, chart)
            _labels(drawn[cell], chart, cell)
        for axes in drawn.values():
            _log_ticks(axes)
        _color_bars(figure, chart, drawn)
        _legend(figure, _handles(chart))
    return figure


def to_png(figure: Figure) -> bytes:
    """Draw the figure as PNG at 200 dots per inch; equal figures give equal bytes."""
    return _bytes(figure, format="png", dpi=200, metadata={"Software": None})


def to_svg(figure: Figure) -> bytes:
    """Draw the figure as SVG, its text kept as text; equal figures give equal bytes."""
    return _bytes(figure, format="svg", dpi=200, metadata={"Date": None, "Creator": None})


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.png and `name`.svg into the folder, which is made if absent.

    Raises:
        TiltmeterError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(to_png(figure))
        (folder / f"{name}.svg").write_bytes(to_svg(figure))
    except OSError as error:
        raise TiltmeterError(f"cannot write figures into {folder} ({error.strerror}); choose another place.") from error


def _bytes(figure: Figure, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(_LOOK):
        figure.savefig(buffer, **settings)
    return buffer.getvalue()


def _cells(chart: Chart) -> dict[_Cell, Panel]:
    return {(at, column): panel for at, row in enumerate(chart.rows) for column, panel in enumerate(row)}


def _width(columns: int) -> float:
    return {1: 5.0, 2: 3.6}.get(columns, 3.0)


def _height(panel: Panel, columns: int) -> float:
    if _has(panel, Surface, Triangle):
        return 0.9 * _width(columns) + 0.3
    if lies(panel):
        bars = sum(len(mark.categories) for mark in panel.marks if isinstance(mark, Bars))
        return 0.6 + max(0.24 * len(categories(panel)), 0.14 * bars)
    return {1: 3.2, 2: 2.7}.get(columns, 2.3)


def _has(panel: Panel, *kinds: type) -> bool:
    return any(isinstance(mark, kinds) for mark in panel.marks)


def _axes(figure: Figure, place: Any, chart: Chart, cell: _Cell, drawn: Mapping[_Cell, Axes]) -> Axes:
    shared = {}
    for axis in ("x", "y"):
        key = _key(chart, cell, axis)
        if key and (same := [other for other in drawn if _key(chart, other, axis) == key]):
            shared[f"share{_across(_cells(chart)[cell], axis)}"] = drawn[same[0]]
    projection = "3d" if _has(_cells(chart)[cell], Surface) else None
    axes: Axes = figure.add_subplot(place, projection=projection, **shared)
    return axes


def _across(panel: Panel, axis: str) -> str:
    """The axis of the paper that an axis of the panel is: where bars lie, its names stand at the left."""
    return {"x": "y", "y": "x"}[axis] if lies(panel) else axis


def _key(chart: Chart, cell: _Cell, axis: str) -> tuple | None:
    """What two panels that share an axis have in common; None where it is not shared."""
    panel = _cells(chart)[cell]
    in_row = axis == "y" and "y" not in chart.share
    if (f"{axis}-of-row" if in_row else axis) not in chart.share or _has(panel, Surface, Triangle):
        return None
    names = tuple(categories(panel)) if axis == "x" else ()
    return axis, cell[0] if in_row else -1, panel.x if axis == "x" else panel.y, names, lies(panel)


def _panel(axes: Any, panel: Panel, chart: Chart) -> None:
    ranges = color_ranges(chart)
    if _has(panel, Bars):
        draw_bars(axes, panel)
    for mark in panel.marks:
        draw_mark(axes, mark, panel, ranges)
    for name, axis in (("x", panel.x), ("y", panel.y)):
        across = _across(panel, name)
        reach = axes.dataLim.intervalx if across == "x" else axes.dataLim.intervaly
        if axis.log:
            axes.set(**{f"{across}scale": "log"})
        if axis.limits or (axis.log and not reach[1] > 0):
            axes.set(**{f"{across}lim": axis.limits or (0.1, 1.0)})


def _labels(axes: Any, chart: Chart, cell: _Cell) -> None:
    """Title and labels; what the next panel to the left or below says as well is left to it."""
    panel, (row, column) = _cells(chart)[cell], cell
    columns = max(map(len, chart.rows))
    across, up = _wrapped(panel.x.label, _width(columns)), _wrapped(panel.y.label, _height(panel, columns))
    axes.set_title(_wrapped(panel.title, _width(columns)))
    if lies(panel):
        across, up = up, across
    axes.set(xlabel=across, ylabel=up)
    for name, other in (("x", (row + 1, column)), ("y", (row, column - 1))):
        own = _across(panel, name)
        if other in _cells(chart) and _key(chart, cell, own) and _key(chart, cell, own) == _key(chart, other, own):
            axes.set(**{f"{name}label": ""})
            axes.tick_params(axis=name, labelbottom=False, labelleft=False)


def _log_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())


def _color_bars(figure: Figure, chart: Chart, drawn: Mapping[_Cell, Axes]) -> None:
    """One for each quantity of each row."""
    beside: dict[tuple[int, str], list[Axes]] = {}
    for cell, panel in _cells(chart).items():
        for mark in panel.marks:
            if isinstance(mark, HeatMap | Surface | Triangle):
                beside.setdefault((cell[0], mark.name), []).append(drawn[cell])
    for (row, name), panels in beside.items():
        height = max(_height(panel, max(map(len, chart.rows))) for panel in chart.rows[row])
        bar = figure.colorbar(mappable(name, color_ranges(chart)), ax=panels, aspect=25, pad=0.03, shrink=0.85)
        bar.set_label(_wrapped(name, height))
        bar.outline.set_visible(False)


def _handles(chart: Chart) -> dict[str, Artist]:
    """What stands for each name in the legend, a mean rather than the single curves of its name."""
    marks = [
        mark for panel in chart.panels for mark in panel.marks if isinstance(mark, Line | Points | Bars | Histogram)
    ]
    handles: dict[str, Artist] = {}
    for mark in sorted(marks, key=_is_thin):
        if not (isinstance(mark, Bars) and set(mark.categories) == {mark.name}):
            handles.setdefault(mark.name, _handle(mark))
    return {mark.name: handles[mark.name] for mark in marks if mark.name in handles}


def _is_thin(mark: Line | Points | Bars | Histogram) -> bool:
    return isinstance(mark, Line) and mark.thin


def _handle(mark: Line | Points | Bars | Histogram) -> Artist:
    color, linestyle, marker, face = mark.style
    if isinstance(mark, Bars):
        return Patch(facecolor=(color, PALE), edgecolor=color)
    if isinstance(mark, Histogram):
        return Patch(facecolor=(color, 0.2), edgecolor=color, linestyle=linestyle)
    if _is_thin(mark):
        return Line2D([], [], color=color, linewidth=0.6, alpha=0.6)
    return Line2D(
        [],
        [],
        color=color,
        linestyle=linestyle if isinstance(mark, Line) else "none",
        marker=marker,
        markerfacecolor=face,
    )


def _legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    if not handles:
        return
    # A handle with the gaps about it is 0.7 inch wide, a row 0.19 inch high.
    shown = dict(list(handles.items())[:MOST_ENTRIES])
    labels = [_shortened(name, int((figure.get_figwidth() - 0.9) / (_LETTER + 0.01))) for name in shown]
    rest = len(handles) - len(shown)
    entries = [*shown.values(), *([Line2D([], [], linestyle="none")] if rest else [])]
    labels += [f"and {rest} more"] if rest else []
    columns = int(figure.get_figwidth() / (_LETTER * max(map(len, labels)) + 0.7))
    columns = max(1, min(len(labels), columns))
    figure.set_figheight(figure.get_figheight() + 0.05 + 0.19 * -(-len(labels) // columns))
    figure.legend(entries, labels, loc="outside lower center", ncols=columns, handlelength=2.8)


def _shortened(name: str, most: int) -> str:
    """A name that the legend has room for; the end tells most names apart."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[most // 3 + 1 - most :]}"


def _wrapped(text: str, inches: float) -> str:
    return textwrap.fill(text, max(12, int(inches / _LETTER)), break_long_words=False)
