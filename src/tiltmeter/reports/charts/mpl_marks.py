"""Drawing each kind of mark on matplotlib axes."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.tri import Triangulation

from tiltmeter.reports.charts.chart import (
    Bars,
    Dots,
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
from tiltmeter.reports.charts.layout import (
    Range,
    band_opacity,
    bar_positions,
    categories,
    fill_opacity,
    is_horizontal,
    is_right_half,
    shortened,
)

COLORS = "cividis"
"""Perceptually uniform, and nearly the same for colour-blind readers."""
MANY = 300
"""Above this number, points are smaller and paler. Above twenty times as many, points and cells are rasterised."""
PALE = 0.6
"""Opacity of bars, low enough that whiskers stay visible."""
BAND = 0.18
"""Opacity of bands, low enough that they are told apart where they overlap."""
_WHISKER: Any = {"ecolor": "#222222", "elinewidth": 1.0, "capsize": 2.0}
_HEIGHT = 3**0.5 / 2


def draw_mark(axes: Any, mark: Mark, panel: Panel, ranges: dict[str, Range]) -> None:
    """Draw one mark of a panel, other than bars, which `draw_bars` draws together."""
    match mark:
        case Line():
            _line(axes, mark, panel)
        case Points():
            _points(axes, mark, panel)
        case Histogram():
            axes.stairs(mark.counts, mark.edges, fill=True, color=mark.style.color, alpha=fill_opacity(panel))
            line = {"linestyle": mark.style.linestyle, "linewidth": 1.3, "label": mark.name}
            axes.stairs(mark.counts, mark.edges, color=mark.style.color, **line)
        case HeatMap():
            mesh = axes.pcolormesh(
                mark.x, mark.y, np.ma.masked_invalid(mark.z), shading="nearest", **_colors(mark, ranges)
            )
            mesh.set_rasterized(mark.z.size > 20 * MANY)
            axes.grid(visible=False)
        case Surface():
            _surface(axes, mark, ranges)
        case Triangle():
            _triangle(axes, mark, ranges)
        case Rule():
            _rule(axes, mark, panel)


def mappable(name: str, ranges: dict[str, Range]) -> ScalarMappable:
    """Return the mappable from which the colour bar of a quantity is drawn."""
    return ScalarMappable(Normalize(*ranges[name]), mpl.colormaps[COLORS])


def draw_bars(axes: Axes, panel: Panel) -> None:
    """Draw all bars of a panel, with those of one category side by side."""
    names, horizontal = categories(panel), is_horizontal(panel)
    for mark in panel.marks:
        if not isinstance(mark, Bars):
            continue
        (centre, width), color, reach = bar_positions(panel, mark), mark.style.color, _reach(mark)
        look: Any = {"facecolor": (color, PALE), "edgecolor": color, "label": mark.name, "error_kw": _WHISKER}
        if isinstance(mark, Dots):
            _dots(axes, mark, centre, horizontal)
        elif horizontal:
            axes.barh(centre, mark.y, height=width, xerr=reach, **look)
        else:
            axes.bar(centre, mark.y, width=width, yerr=reach, **look)
    axis = axes.yaxis if horizontal else axes.xaxis
    axis.set_ticks(range(len(names)), [textwrap.fill(name, 40) for name in names])
    axes.grid(axis="y" if horizontal else "x", visible=False)
    if horizontal:
        axes.set_ylim(len(names) - 0.5, -0.5)
    elif names:
        axes.set_xlim(-0.5, len(names) - 0.5)


def _dots(axes: Axes, mark: Dots, centre: np.ndarray, horizontal: bool) -> None:
    x, y = (mark.y, centre) if horizontal else (centre, mark.y)
    color, _, marker, face = mark.style
    look: Any = {"color": color, "marker": marker, "markerfacecolor": face, "elinewidth": 1.2, "capsize": 2.0}
    look["xerr" if horizontal else "yerr"] = _reach(mark)
    axes.errorbar(x, y, linestyle="none", label=mark.name, **look)


def _line(axes: Axes, mark: Line, panel: Panel) -> None:
    x, y = _positive(mark.x, panel.x.log), _positive(mark.y, panel.y.log)
    style = mark.style
    if mark.thin:
        axes.plot(x, y, color=style.color, linewidth=0.6, alpha=0.3, zorder=1.5, label=mark.name)
        return
    if mark.low is not None and mark.high is not None:
        low, high = mark.low, _positive(mark.high, panel.y.log)
        if panel.y.log:  # on a logarithmic axis, a band that reaches zero extends to the bottom of the axis
            low = np.where(low > 0, low, floor(panel))
        axes.fill_between(x, low, high, color=style.color, alpha=band_opacity(panel), linewidth=0)
    every = max(1, round(np.isfinite(y).sum() / 16))
    look: Any = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
    axes.plot(x, y, markerfacecolor=style.face, markevery=every, label=mark.name, **look)


def _points(axes: Axes, mark: Points, panel: Panel) -> None:
    x, y = _positive(mark.x, panel.x.log), _positive(mark.y, panel.y.log)
    many, whisker = len(x) > MANY, (mark.style.color, 0.45)
    look: Any = {"color": mark.style.color, "marker": mark.style.marker, "markerfacecolor": mark.style.face}
    if many:
        look |= {"markersize": 2.0, "alpha": 0.5, "markerfacecolor": mark.style.color, "markeredgewidth": 0}
    bars = axes.errorbar(
        x, y, yerr=_reach(mark), ecolor=whisker, linestyle="none", elinewidth=0.9, label=mark.name, **look
    )
    for name, at, height in zip(mark.labels, x, y, strict=False):
        axes.annotate(
            name, (at, height), xytext=(5, 3), textcoords="offset points", fontsize=8, color=mark.style.color, zorder=11
        )
    for artist in bars.get_children():
        artist.set_rasterized(len(x) > 20 * MANY)


def _surface(axes: Any, mark: Surface, ranges: dict[str, Range]) -> None:
    x, y = np.meshgrid(mark.x, mark.y)
    axes.plot_surface(
        x, y, mark.z, rcount=80, ccount=80, linewidth=0.15, edgecolor="#FFFFFF60", alpha=0.9, **_colors(mark, ranges)
    )
    axes.set_zlim(*ranges[mark.name])
    axes.set_box_aspect(None, zoom=0.82)
    axes.tick_params(labelsize=8, pad=1)
    for name, *place in mark.marked:
        axes.plot(*([value] for value in place), linestyle="none", marker="o", color="#D55E00", zorder=10)
        axes.text(*place, f"  {name}", fontsize=8, zorder=11)


def _triangle(axes: Axes, mark: Triangle, ranges: dict[str, Range]) -> None:
    corners = np.array([[0.5, _HEIGHT], [0.0, 0.0], [1.0, 0.0]])
    known = np.isfinite(mark.values)
    x, y = (mark.weights[known] @ corners).T
    if len(x) > 2 and np.linalg.matrix_rank(np.stack([x - x[0], y - y[0]]), tol=1e-9) == 2:
        levels = np.linspace(*ranges[mark.name], 41)
        axes.tricontourf(Triangulation(x, y), mark.values[known], levels=levels, cmap=COLORS, extend="both")
    else:  # collinear points cannot be triangulated
        axes.scatter(x, y, c=mark.values[known], **_colors(mark, ranges))
    axes.plot(*corners[[0, 1, 2, 0]].T, color="#444444", linewidth=0.9)
    for (at, up), name, side in zip(corners, mark.corners, ("center", "left", "right"), strict=True):
        below = up == 0
        at += {"center": 0.0, "left": -0.1, "right": 0.1}[side]
        name = textwrap.fill(name, 22)
        axes.text(at, up + (-0.04 if below else 0.04), name, ha=side, va="top" if below else "bottom", fontsize=9)
    axes.set(xlim=(-0.12, 1.12), ylim=(-0.16, _HEIGHT + 0.16), aspect="equal")
    axes.set_axis_off()


def _rule(axes: Axes, mark: Rule, panel: Panel) -> None:
    """Draw a line across the panel, with its label beside it inside the axes."""
    color = mark.style.color if mark.style else "#666666"
    line: Any = {"color": color, "linewidth": 0.9, "linestyle": mark.style.linestyle if mark.style else (0.0, (3, 2))}
    look: Any = {"textcoords": "offset points", "fontsize": 8, "color": color}
    if (mark.across == "x") != is_horizontal(panel):
        axes.axvline(mark.at, **line)
        place, clear = ("right", (-3, -2)) if is_right_half(panel, mark) else ("left", (3, -2))
        look |= {"xy": (mark.at, 1), "xycoords": axes.get_xaxis_transform(), "xytext": clear, "ha": place, "va": "top"}
    else:
        axes.axhline(mark.at, **line)
        look |= {"xy": (1, mark.at), "xycoords": axes.get_yaxis_transform(), "xytext": (-2, 2), "ha": "right"}
    axes.annotate(shortened(mark.text, 36), **look)


def floor(panel: Panel) -> float:
    """The smallest positive value of a panel's lines, bands and points, or the start of its axis if that is set."""
    if panel.y.limits:
        return panel.y.limits[0]
    marks = [mark for mark in panel.marks if isinstance(mark, Line | Points)]
    values = [of[of > 0] for mark in marks for of in (mark.y, mark.low) if of is not None]
    return float(np.concatenate(values or [np.empty(0)]).min(initial=1.0))


def _positive(values: np.ndarray, log: bool) -> np.ndarray:
    return np.where(values > 0, values, np.nan) if log else values


def _reach(mark: Points | Bars) -> np.ndarray | None:
    if mark.low is None or mark.high is None:
        return None
    return np.stack([mark.y - mark.low, mark.high - mark.y]).clip(min=0)


def _colors(mark: HeatMap | Surface | Triangle, ranges: dict[str, Range]) -> Any:
    low, high = ranges[mark.name]
    return {"cmap": COLORS, "vmin": low, "vmax": high}
