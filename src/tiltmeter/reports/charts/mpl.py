"""Matplotlib rendering, for papers and browsers without scripts: PNG, SVG and PDF, reproducible to the byte."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from tiltmeter.reports.charts.chart import Bars, Chart, HeatMap, Histogram, Line, Panel, Surface, Triangle
from tiltmeter.reports.charts.layout import (
    AXIS_NAMES,
    Cell,
    Named,
    categories,
    cells,
    color_ranges,
    drawn_axis,
    has,
    is_horizontal,
    is_thin,
    legend,
    legend_groups,
    shared_axis,
    shares_axis_label,
    shortened,
)
from tiltmeter.reports.charts.mpl_marks import BAND, PALE, draw_bars, draw_mark, mappable

MOST_ENTRIES = 24
"""Maximum number of legend entries."""
WIDEST = 9.0
"""Width of a figure of three or more columns, in inches."""
_FEW_TICKS = 8.0
"""Ratio of the ends of a logarithmic axis below which it has round numbers as ticks."""
_BESIDE = 0.9
"""Width beside all panels in inches."""
_LETTER = 0.067
"""Width of a character in inches."""

_NOT_XML = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Control characters that a file name can contain and XML cannot."""

_NO_GLYPH = "Glyph .* missing from font"
"""A warning of matplotlib, which means nothing here: file names may contain any character."""

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
    "text.parse_math": False,  # a dollar sign in a file name must not start a formula
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # fonts that journals and editors of pictures accept
    "svg.hashsalt": "tiltmeter",
}


class NotebookFigure(Figure):
    """A figure that a notebook shows even if pyplot, which teaches notebooks to show figures, was never imported."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def draw(chart: Chart, size: tuple[float, float] | None = None) -> Figure:
    """Draw a chart with a single legend below it.

    Each name appears in the legend once; of more than 24 names, the first are listed. Non-positive values are not drawn
    on a logarithmic axis.

    Args:
        chart: what is drawn.
        size: width and height in inches; as the panels need if not given.
    """
    columns = chart.columns
    width = _BESIDE + columns * _width(columns)
    heights = [max(_height(panel, columns) for panel in row) for row in chart.rows]
    with mpl.rc_context(_LOOK):
        figure = NotebookFigure(figsize=size or (width, 0.5 + sum(heights)), layout=ConstrainedLayoutEngine(w_pad=0.07))
        figure.suptitle(_wrapped(chart.title, width), fontsize=10.5) if chart.title else None
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        drawn: dict[Cell, Axes] = {}
        for cell, panel in cells(chart).items():
            drawn[cell] = _axes(figure, grid[cell], chart, cell, drawn)
            _panel(drawn[cell], panel, chart)
            _labels(drawn[cell], chart, cell)
        for axes in drawn.values():
            _log_ticks(axes)
        _color_bars(figure, chart, drawn)
        _legend(figure, legend(chart))
        _lay_out_once(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """Draw the figure as PNG at 200 dpi. Equal figures yield equal bytes."""
    return _bytes(figure, format="png", dpi=200, metadata={"Software": None})


def to_pdf(figure: Figure) -> bytes:
    """Draw the figure as PDF with text kept as text. Equal figures yield equal bytes."""
    return _bytes(figure, format="pdf", dpi=200, metadata={"CreationDate": None, "Creator": None, "Producer": None})


def to_svg(figure: Figure) -> bytes:
    """Draw the figure as SVG with text kept as text. Equal figures yield equal bytes."""
    svg = _bytes(figure, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return _NOT_XML.sub(b"?", svg)


def _lay_out_once(figure: Figure) -> None:
    """Compute the layout now, since each file would compute it again, which takes as long as drawing.

    With no engine at all: `"none"` would leave a placeholder, for which each file is drawn twice.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NO_GLYPH)
        figure.draw_without_rendering()
    figure.set_layout_engine(None)


def _bytes(figure: Figure, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(_LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NO_GLYPH)
        figure.savefig(buffer, **settings)
    return buffer.getvalue()


def _width(columns: int) -> float:
    """Width of a panel in inches; of three or more, so that the figure has 9 inches (1,800 pixels)."""
    return {1: 5.0, 2: 3.6}.get(columns, (WIDEST - _BESIDE) / columns)


def _height(panel: Panel, columns: int) -> float:
    if has(panel, Surface, Triangle):
        return 0.9 * _width(columns) + 0.3
    if is_horizontal(panel):
        bars = sum(len(mark.categories) for mark in panel.marks if isinstance(mark, Bars))
        return 0.6 + max(0.24 * len(categories(panel)), 0.14 * bars)
    return {1: 3.2, 2: 2.7}.get(columns, 2.3)


def _axes(figure: Figure, place: Any, chart: Chart, cell: Cell, drawn: Mapping[Cell, Axes]) -> Axes:
    panel = cells(chart)[cell]
    shared = {}
    for axis_name in AXIS_NAMES:
        own = shared_axis(chart, cell, axis_name)
        if own and (same := [other for other in drawn if shared_axis(chart, other, axis_name) == own]):
            shared[f"share{drawn_axis(panel, axis_name)}"] = drawn[same[0]]
    axes: Axes = figure.add_subplot(place, projection="3d" if has(panel, Surface) else None, **shared)
    return axes


def _panel(axes: Any, panel: Panel, chart: Chart) -> None:
    ranges = color_ranges(chart)
    if has(panel, Bars):
        draw_bars(axes, panel)
    for mark in panel.marks:
        draw_mark(axes, mark, panel, ranges)
    for axis_name, axis in zip(AXIS_NAMES, (panel.x, panel.y), strict=True):
        across = drawn_axis(panel, axis_name)
        reach = axes.dataLim.intervalx if across == "x" else axes.dataLim.intervaly
        if axis.limits or (axis.log and not reach[1] > 0):
            axes.set(**{f"{across}lim": axis.limits or (0.1, 1.0)})
        if axis.log:  # after the limits are set, since matplotlib warns without them
            axes.set(**{f"{across}scale": "log"})


def _labels(axes: Axes, chart: Chart, cell: Cell) -> None:
    """Set title and labels, except those that the next panel to the left or below already shows."""
    panel, columns = cells(chart)[cell], chart.columns
    axes.set_title(_wrapped(panel.title, _width(columns)))
    for axis_name, axis in zip(AXIS_NAMES, (panel.x, panel.y), strict=True):
        across = drawn_axis(panel, axis_name)
        if shares_axis_label(chart, cell, axis_name):
            axes.tick_params(axis=across, labelbottom=False, labelleft=False)
        else:
            room = _width(columns) - _names_width(chart, cell) if across == "x" else _height(panel, columns)
            axes.set(**{f"{across}label": _wrapped(axis.label, room)})


def _names_width(chart: Chart, cell: Cell) -> float:
    """Fraction of a panel's width for the names of horizontal bars: up to a half, or little if panels share them."""
    panel = cells(chart)[cell]
    if not is_horizontal(panel) or shared_axis(chart, cell, "x"):
        return 0.0
    return min(_LETTER * max(map(len, categories(panel))), _width(3) / 2)


def _log_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            few = high < _FEW_TICKS * low  # of 1, 2 and 5 times a power of ten; round numbers then
            several = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,))
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if few else several)
            axis.set_minor_locator(NullLocator() if few else LogLocator(subs="all"))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())


def _color_bars(figure: Figure, chart: Chart, drawn: Mapping[Cell, Axes]) -> None:
    """Draw one colour bar for each quantity in each row."""
    beside: dict[tuple[int, str], list[Axes]] = {}
    for cell, panel in cells(chart).items():
        for mark in panel.marks:
            if isinstance(mark, HeatMap | Surface | Triangle):
                beside.setdefault((cell[0], mark.name), []).append(drawn[cell])
    for (row, name), panels in beside.items():
        height = max(_height(panel, chart.columns) for panel in chart.rows[row])
        bar = figure.colorbar(mappable(name, color_ranges(chart)), ax=panels, aspect=25, pad=0.03, shrink=0.85)
        bar.set_label(_wrapped(name, height))
        bar.outline.set_visible(False)


def _handle(mark: Named) -> Artist | tuple[Artist, ...]:
    """What stands for a mark in the legend; of a line with a band, both, one above the other."""
    color, linestyle, marker, face = mark.style
    if isinstance(mark, Bars):
        return Patch(facecolor=(color, PALE), edgecolor=color)
    if isinstance(mark, Histogram):
        return Patch(facecolor=(color, 0.2), edgecolor=color, linestyle=linestyle)
    if is_thin(mark):
        return Line2D([], [], color=color, linewidth=0.6, alpha=0.6)
    line = Line2D(
        [],
        [],
        color=color,
        linestyle=linestyle if isinstance(mark, Line) else "none",
        marker=marker,
        markerfacecolor=face,
    )
    has_band = isinstance(mark, Line) and mark.low is not None and bool(np.isfinite(mark.low).any())
    return (Patch(facecolor=(color, BAND), linewidth=0), line) if has_band else line


def _legend(figure: Figure, named: Mapping[str, Named]) -> None:
    if not named:
        return
    # A legend handle with its gaps is 0.7 inch wide, and a row 0.19 inch high.
    shown = dict(list(named.items())[:MOST_ENTRIES])
    labels = [shortened(name, int((figure.get_figwidth() - _BESIDE) / (_LETTER + 0.01))) for name in shown]
    rest = len(named) - len(shown)
    entries: list[Any] = [*map(_handle, shown.values()), *([_blank()] if rest else [])]
    labels += [f"and {rest} more"] if rest else []
    columns = int(figure.get_figwidth() / (_LETTER * max(map(len, labels)) + 0.7))
    columns = max(1, min(len(labels), columns))
    groups = legend_groups(shown)
    if 1 < len(groups) <= columns and not rest:
        entries, labels = _in_columns(entries, labels, groups)
        columns = len(groups)
    figure.set_figheight(figure.get_figheight() + 0.05 + 0.19 * -(-len(labels) // columns))
    figure.legend(entries, labels, loc="outside lower center", ncols=columns, handlelength=2.8)


def _blank() -> Artist:
    return Line2D([], [], linestyle="none")


def _in_columns(
    entries: list[Artist], labels: list[str], groups: Mapping[str, list[int]]
) -> tuple[list[Artist], list[str]]:
    """Fill up each group to the length of the longest with blank entries: matplotlib lists them column by column."""
    longest = max(map(len, groups.values()))
    places = [at for group in groups.values() for at in [*group, *[-1] * (longest - len(group))]]
    return [_blank() if at < 0 else entries[at] for at in places], ["" if at < 0 else labels[at] for at in places]


def _wrapped(text: str, inches: float) -> str:
    """Wrap into the fewest lines that fit, of about equal length: no unit stands alone on the last."""
    most = max(12, int(0.85 * inches / _LETTER))
    lines = len(textwrap.wrap(text, most))
    least = max(map(len, text.split()), default=most)  # no word is broken that need not be
    fills = (textwrap.fill(text, width) for width in (*range(least, most), most))
    return next(fill for fill in fills if fill.count("\n") < lines or not lines)
