"""Conversion of each kind of mark to plotly traces: plain dictionaries of text, numbers and lists."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tiltmeter.reports.charts.chart import Bars, Dots, HeatMap, Histogram, Line, Panel, Points, Rule, Surface, Triangle
from tiltmeter.reports.charts.layout import (
    Named,
    band_opacity,
    bar_positions,
    fill_opacity,
    is_horizontal,
    is_right_half,
    shortened,
)
from tiltmeter.reports.charts.styles import Dash, Style

LONGEST = 60
"""Characters of a name in the legend. The full name is shown on hover."""

Trace = dict[str, Any]

_SYMBOLS = {
    "s": "square",
    "o": "circle",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "D": "diamond",
    "d": "diamond-tall",
    "P": "cross",
    "X": "x",
    "*": "star",
    "p": "pentagon",
    "h": "hexagon",
}
_AT = "<b>%{meta[2]}</b><br>%{meta[0]}: %{x:.4~g}<br>%{meta[1]}: %{y:.4~g}"


def traces(panel: Panel, legend: Mapping[str, Named], coloring: Mapping[str, str], side: float) -> Iterator[Trace]:
    """Build the traces of a panel, not yet assigned to axes.

    Args:
        panel: the panel whose marks are converted.
        legend: the mark that represents each name.
        coloring: the colour axis of each quantity.
        side: side of a triangle in this panel, in pixels.
    """
    yield from _single_curves(panel, legend)
    for mark in panel.marks:
        match mark:
            case Line() if not mark.thin:
                yield from _line(mark, panel, legend)
            case Points():
                yield _points(mark, panel, legend)
            case Bars():
                yield _bars(mark, panel, legend)
            case Histogram():
                yield _histogram(mark, panel, legend)
            case HeatMap() | Surface():
                yield from _grid(mark, panel, coloring[mark.name])
            case Triangle():
                yield from _blends(mark, coloring[mark.name], side)
            case _:
                pass


def rules(panel: Panel, x: str, y: str) -> Iterator[Trace]:
    """Convert the rules of a panel to line shapes on these axes."""
    for mark in panel.marks:
        if isinstance(mark, Rule):
            across = "x" if (mark.across == "x") != is_horizontal(panel) else "y"
            along = "y" if across == "x" else "x"
            refs = {f"{across}ref": (x, y)[across == "y"], f"{along}ref": f"{(x, y)[along == 'y']} domain"}
            ends = {f"{across}0": mark.at, f"{across}1": mark.at, f"{along}0": 0, f"{along}1": 1}
            style = mark.style or Style("#666666", (0.0, (3.0, 2.0)))
            side = "right" if across == "y" or is_right_half(panel, mark) else "left"
            label = {"text": text(mark.text), "textposition": "end", "textangle": 0, "font": {"size": 11}}
            label |= {"xanchor": side, "yanchor": "top" if across == "x" else "bottom"}
            line = {"color": style.color, "width": 1, "dash": dash(style.linestyle)}
            yield {"type": "line", **refs, **ends, "line": line, "label": label}


def numbers(values: np.ndarray) -> list[float | None]:
    """Convert to a plain list, to six digits. Non-finite values become null."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def text(words: str, width: int | None = None) -> str:
    """Escape text so that plotly shows it literally, wrapped to about this many characters per line."""
    lines, line = [], ""
    for word in words.split():
        if line and width and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join(html.escape(one, quote=False) for one in [*lines, line])


def dash(linestyle: Dash, width: float = 2.0) -> str:
    """Convert a dash to plotly's notation. Matplotlib's lengths are in units of the line width."""
    return linestyle if isinstance(linestyle, str) else ",".join(f"{length * width:g}px" for length in linestyle[1])


def pale(color: str, opacity: float) -> str:
    """Convert a colour and opacity to `rgba(...)`."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _named(mark: Named, panel: Panel, legend: Mapping[str, Named]) -> Trace:
    """Common fields of traces in the legend: clicking a name toggles all traces with it."""
    meta = [text(panel.x.label) or "x", text(panel.y.label) or "y", text(mark.name)]
    group = {"name": text(shortened(mark.name, LONGEST)), "legendgroup": mark.name, "meta": meta}
    return group | {"showlegend": legend.get(mark.name) is mark}


def _marker(style: Style) -> Trace:
    line = {"color": style.color, "width": 1.4}
    return {"symbol": _SYMBOLS[style.marker], "size": 7, "color": style.face, "line": line}


def _line(mark: Line, panel: Panel, legend: Mapping[str, Named]) -> Iterator[Trace]:
    named, style = _named(mark, panel, legend), mark.style
    if mark.low is not None and mark.high is not None:
        for band in _band(mark, panel):
            look = {
                "mode": "lines",
                "line": {"width": 0},
                "fill": "toself",
                "fillcolor": pale(style.color, band_opacity(panel)),
            }
            yield {"type": "scatter", **band, **named, **look, "showlegend": False, "hoverinfo": "skip"}
    markers: Trace = {"mode": "lines"}
    if style.marker:
        markers = {"mode": "lines+markers", "marker": {**_marker(style), "maxdisplayed": 17}}
    yield {
        "type": "scatter",
        "x": numbers(mark.x),
        "y": numbers(mark.y),
        **named,
        "customdata": _intervals(mark),
        "hovertemplate": f"{_AT}%{{customdata}}<extra></extra>",
        "line": {"color": style.color, "width": 2, "dash": dash(style.linestyle)},
        **markers,
    }


def _band(mark: Line, panel: Panel) -> Iterator[Trace]:
    """Build the outlines of a band, one per stretch without a gap."""
    low, high = mark.low, mark.high
    assert low is not None and high is not None
    positive = mark.y[mark.y > 0]
    if panel.y.log or (len(positive) and not (low < 0).any()):
        # A logarithmic axis has no zero: clip bands just above it, too close to be seen on a linear axis.
        least = min(positive.min(initial=np.inf), 1e-4 * positive.max(initial=0.0))
        low = np.where((low <= 0) & (high > 0), least, low)
    known = np.isfinite(mark.x) & np.isfinite(low) & np.isfinite(high)
    for stretch in np.split(np.arange(len(known)), np.flatnonzero(~known)):
        at = stretch[known[stretch]]
        if len(at) > 1:
            x, y = np.concatenate([mark.x[at], mark.x[at][::-1]]), np.concatenate([high[at], low[at][::-1]])
            yield {"x": numbers(x), "y": numbers(y)}


def _single_curves(panel: Panel, legend: Mapping[str, Named]) -> Iterator[Trace]:
    """Join all individual curves of a name into one trace, with gaps between them."""
    groups: dict[tuple[str, Style], list[Line]] = {}
    for mark in panel.marks:
        if isinstance(mark, Line) and mark.thin:
            groups.setdefault((mark.name, mark.style), []).append(mark)
    for (_, style), curves in groups.items():
        x, y = (
            [value for curve in curves for value in [*numbers(getattr(curve, way)), None]][:-1] for way in ("x", "y")
        )
        line = {"color": pale(style.color, 0.35), "width": 1}
        look: Trace = {
            "type": "scatter",
            "mode": "lines",
            "line": line,
            "hovertemplate": f"{_AT}<extra>one curve</extra>",
        }
        yield {**look, "x": x, "y": y, **_named(curves[0], panel, legend)}


def _points(mark: Points, panel: Panel, legend: Mapping[str, Named]) -> Trace:
    named, many = _named(mark, panel, legend), len(mark.x) > 300
    marker = _marker(mark.style) | ({"size": 4, "opacity": 0.5} if many else {})
    trace: Trace = {"type": "scatter", "mode": "markers", "x": numbers(mark.x), "y": numbers(mark.y), "marker": marker}
    if reach := _reach(mark):
        trace["error_y"] = {**reach, "color": pale(mark.style.color, 0.45), "thickness": 1.2, "width": 0}
    if mark.labels:
        trace |= {"mode": "markers+text", "text": [text(one) for one in mark.labels], "textposition": "top right"}
        trace["textfont"] = {"size": 11, "color": mark.style.color}
    if mark.texts:
        trace["hovertext"] = [text(one) for one in mark.texts]
    words = "<br>%{hovertext}" if mark.texts else ""
    hover = f"{_AT}%{{customdata}}{words}<extra></extra>"
    return {**trace, **named, "customdata": _intervals(mark), "hovertemplate": hover}


def _bars(mark: Bars, panel: Panel, legend: Mapping[str, Named]) -> Trace:
    centre, width = bar_positions(panel, mark)
    ways = ("y", "x") if is_horizontal(panel) else ("x", "y")
    color = mark.style.color
    words = [
        f"{text(name)}: {value:.4g}{more}"
        for name, value, more in zip(mark.categories, mark.y, _intervals(mark), strict=True)
    ]
    bar = {
        "type": "bar",
        "orientation": "h" if is_horizontal(panel) else "v",
        "width": numbers(width),
        "marker": {"color": pale(color, 0.6), "line": {"color": color, "width": 1.4}},
    }
    dot = {"type": "scatter", "mode": "markers", "marker": _marker(mark.style)}
    trace: Trace = _named(mark, panel, legend) | {
        **(dot if isinstance(mark, Dots) else bar),
        ways[0]: numbers(centre),
        ways[1]: numbers(mark.y),
        "customdata": words,
        "hovertemplate": "<b>%{meta[2]}</b><br>%{meta[1]}<br>%{customdata}<extra></extra>",
    }
    if reach := _reach(mark):
        ink = color if isinstance(mark, Dots) else "#222222"
        trace[f"error_{ways[1]}"] = {**reach, "color": ink, "thickness": 1.2, "width": 3}
    return trace


def _histogram(mark: Histogram, panel: Panel, legend: Mapping[str, Named]) -> Trace:
    """Draw steps that start and end at zero."""
    edges = numbers(mark.edges)
    words = [
        f"{begin:g} to {end:g}: {count:g}"
        for begin, end, count in zip(mark.edges, mark.edges[1:], mark.counts, strict=False)
    ]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [edges[0], *edges],
        "y": [0.0, *numbers(mark.counts), 0.0],
        **_named(mark, panel, legend),
        "line": {"color": mark.style.color, "width": 1.6, "shape": "hv", "dash": dash(mark.style.linestyle)},
        "fill": "tozeroy",
        "fillcolor": pale(mark.style.color, fill_opacity(panel)),
        "customdata": ["", *words, ""],
        "hovertemplate": "<b>%{meta[2]}</b><br>%{customdata}<extra></extra>",
    }


def _grid(mark: HeatMap | Surface, panel: Panel, axis: str) -> Iterator[Trace]:
    shared = {"showlegend": False, "meta": [text(panel.x.label) or "x", text(panel.y.label) or "y", text(mark.name)]}
    grid = {"x": numbers(mark.x), "y": numbers(mark.y), "z": [numbers(row) for row in mark.z]}
    hover = "%{meta[0]}: %{x:.4~g}<br>%{meta[1]}: %{y:.4~g}<br>%{meta[2]}: %{z:.4~g}<extra></extra>"
    kind = "heatmap" if isinstance(mark, HeatMap) else "surface"
    yield {"type": kind, **shared, **grid, "coloraxis": axis, "hovertemplate": hover}
    if isinstance(mark, Surface) and mark.marked:
        names, *place = zip(*mark.marked, strict=True)
        yield {
            "type": "scatter3d",
            "mode": "markers+text",
            **shared,
            **{way: numbers(np.array(values)) for way, values in zip("xyz", place, strict=True)},
            "text": [text(name) for name in names],
            "marker": {"color": "#D55E00", "size": 5},
            "hovertemplate": f"<b>%{{text}}</b><br>{hover}",
        }


def _blends(mark: Triangle, axis: str, side: float) -> Iterator[Trace]:
    """Draw dots sized to touch if the blends form a regular grid of n (n + 1) / 2 points, n per side."""
    on_a_side = np.sqrt(2 * max(len(mark.values), 1) + 0.25) - 0.5
    size = round(float(np.clip(1.1 * side / max(on_a_side - 1, 1), 3, 40)), 1)
    words = "".join(f"%{{meta[{at}]}}: %{{{way}:.2f}}<br>" for at, way in enumerate("abc"))
    shared: Trace = {"type": "scatterternary", "showlegend": False, "cliponaxis": False}
    yield shared | {
        "mode": "markers",
        **dict(zip("abc", map(numbers, mark.weights.T), strict=True)),
        "meta": [text(name) for name in (*mark.corners, mark.name)],
        "marker": {"color": numbers(mark.values), "coloraxis": axis, "symbol": "hexagon", "size": size},
        "hovertemplate": f"{words}%{{meta[3]}}: %{{marker.color:.4~g}}<extra></extra>",
    }
    yield shared | {  # invisible dots keep the names away from the corners
        "mode": "markers+text",
        **dict(zip("abc", np.eye(3).tolist(), strict=True)),
        "text": [text(name, 16) for name in mark.corners],
        "textposition": ["top center", "bottom center", "bottom center"],
        "marker": {"size": size, "opacity": 0},
        "hoverinfo": "skip",
    }


def _intervals(mark: Line | Points | Bars) -> list[str]:
    """Format `[low, high]` of each point, for display after its value."""
    if mark.low is None or mark.high is None:
        return [""] * len(mark.y)
    bounds = zip(mark.low, mark.high, strict=True)
    return [f" [{low:.3g}, {high:.3g}]" if np.isfinite(low) and np.isfinite(high) else "" for low, high in bounds]


def _reach(mark: Points | Bars) -> Trace:
    if mark.low is None or mark.high is None:
        return {}
    up, down = numbers((mark.high - mark.y).clip(min=0)), numbers((mark.y - mark.low).clip(min=0))
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
