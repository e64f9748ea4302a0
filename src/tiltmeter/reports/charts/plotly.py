"""Plotly rendering, for the report: the input of `Plotly.newPlot` as plain JSON.

Names, labels and texts are shown literally: a file name must not be read as markup, a template or a formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tiltmeter.reports.charts.chart import (
    Axis,
    Bars,
    Chart,
    Dots,
    HeatMap,
    Line,
    Panel,
    Points,
    Rule,
    Surface,
    Triangle,
)
from tiltmeter.reports.charts.layout import (
    AXIS_NAMES,
    AxisName,
    Cell,
    categories,
    cells,
    color_ranges,
    drawn_axis,
    has,
    is_horizontal,
    legend,
    shared_axis,
    shares_axis_label,
)
from tiltmeter.reports.charts.plotly_grid import LONGEST, TITLE, WIDTH, Frame, PanelPlace, frame
from tiltmeter.reports.charts.plotly_traces import Trace, rules, text, traces

_INK, _LINES, _GRID = "#333333", "#888888", "#e4e4e4"
_LETTER = 6.6
"""Width of a character in pixels."""

Json = dict[str, Any]


def to_plotly(chart: Chart) -> Json:
    """Convert a chart to plotly's `data` and `layout`: JSON without NaN, with numbers to six digits.

    Clicking a legend entry toggles all marks of that name, in all panels. If lines and points have no negative values,
    buttons switch between linear and logarithmic axes.
    """
    place = frame(chart, any(_switchable(chart, axis_name) for axis_name in AXIS_NAMES))
    named, coloring = legend(chart), _coloring(chart)
    data = [
        {**trace, **_standing(place.places[cell], trace)}
        for cell, panel in cells(chart).items()
        for trace in traces(panel, named, coloring, place.places[cell].side)
    ]
    return {"data": data, "layout": _layout(chart, place)}


def _standing(place: PanelPlace, trace: Trace) -> Json:
    """Assign a trace to its axes."""
    if place.kind == "scene":
        return {"scene": place.axis_id("scene")}
    if place.kind == "ternary":
        return {"subplot": place.axis_id("ternary")}
    return {"xaxis": place.axis_id("x"), "yaxis": place.axis_id("y")}


def _layout(chart: Chart, where: Frame) -> Json:
    layout: Json = {
        "height": where.above + where.plot + where.below,
        "margin": {"l": 64, "r": 16, "t": where.above, "b": where.below},
        "autosize": True,
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "font": {"family": "system-ui, Verdana, Arial, sans-serif", "size": 12, "color": _INK},
        "hovermode": "closest",
        "hoverlabel": {"namelength": -1},
        "barmode": "overlay",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -56 / where.plot, "yanchor": "top"},
        "annotations": list(_titles(chart, where)),
        "updatemenus": list(_menus(chart, where)),
        "shapes": [],
        **_color_axes(chart, where),
    }
    for cell, place in where.places.items():
        panel = cells(chart)[cell]
        if place.kind == "scene":
            layout[place.axis_id("scene")] = _scene(panel, place, chart)
        elif place.kind == "ternary":
            layout[place.axis_id("ternary")] = _ternary(place)
        else:
            layout |= _axes(chart, cell, where)
            layout["shapes"] += rules(panel, place.axis_id("x"), place.axis_id("y"))
    return layout


def _axes(chart: Chart, cell: Cell, where: Frame) -> Json:
    """Build the two axes of a panel, each matched to the axes it shares."""
    panel, place = cells(chart)[cell], where.places[cell]
    found = {}
    for axis_name, axis in zip(AXIS_NAMES, (panel.x, panel.y), strict=True):
        across = drawn_axis(panel, axis_name)
        own = shared_axis(chart, cell, axis_name)
        first = next((other for other in where.places if own and shared_axis(chart, other, axis_name) == own), cell)
        silent = shares_axis_label(chart, cell, axis_name)
        room = place.width if across == "x" else place.height
        found[place.axis_id(f"{across}axis")] = {
            "title": {
                "text": "" if silent else text(axis.label, int(room / _LETTER)),
                "standoff": 8,
                "font": {"size": 12},
            },
            "domain": list(place.x if across == "x" else place.y),
            "anchor": place.axis_id("y" if across == "x" else "x"),
            "type": "log" if axis.log else "linear",
            "showticklabels": not silent,
            **({"matches": where.places[first].axis_id(across)} if first != cell else {}),
            **(_bar_ticks(chart, cell, axis_name) if has(panel, Bars) else _ticks(axis)),
            **{"automargin": True, "linecolor": _LINES, "tickcolor": _LINES, "ticks": "outside", "ticklen": 4},
            "showgrid": not (has(panel, HeatMap) or (axis_name == "x" and has(panel, Bars))),
        }
    return found


def _ticks(axis: Axis) -> Json:
    limits = {"range": [_on_axis(limit, axis.log) for limit in axis.limits]} if axis.limits else {}
    return {"gridcolor": _GRID, "zeroline": False, "exponentformat": "power", **limits}


def _on_axis(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _bar_ticks(chart: Chart, cell: Cell, axis_name: AxisName) -> Json:
    """Set category names, and a value range for all panels that share the axis, as plotly finds none for bars."""
    panel, own = cells(chart)[cell], shared_axis(chart, cell, axis_name)
    if axis_name == "x":
        names = categories(panel)
        ends = [len(names) - 0.5, -0.5] if is_horizontal(panel) else [-0.5, len(names) - 0.5]
        return {"tickvals": list(range(len(names))), "ticktext": [text(name, LONGEST) for name in names], "range": ends}
    if panel.y.limits or panel.y.log:
        return _ticks(panel.y)
    sharing = [one for other, one in cells(chart).items() if own and shared_axis(chart, other, axis_name) == own]
    marks = [mark for one in sharing or [panel] for mark in one.marks if isinstance(mark, Bars)]
    values = np.concatenate([part for mark in marks for part in _values(mark, "y")])
    if marks and all(isinstance(mark, Dots) for mark in marks):
        marked = [mark.at for one in sharing or [panel] for mark in one.marks if isinstance(mark, Rule)]
        return _ticks(replace(panel.y, limits=_around(np.append(values, marked))))
    values = np.append(values, 0.0)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low)
    return _ticks(replace(panel.y, limits=(low - margin * (low < 0), high + margin * (high > 0) or 1.0)))


def _around(values: np.ndarray) -> tuple[float, float]:
    """A range with a margin on both sides."""
    known = values[np.isfinite(values)]
    low, high = float(known.min(initial=np.inf)), float(known.max(initial=-np.inf))
    if not low < high:
        return (low - 1.0, high + 1.0) if low == high else (0.0, 1.0)
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


def _scene(panel: Panel, place: PanelPlace, chart: Chart) -> Json:
    surface = next(mark for mark in panel.marks if isinstance(mark, Surface))
    title = {"font": {"size": 11}}
    return {
        "domain": {"x": list(place.x), "y": list(place.y)},
        "xaxis": {"title": {"text": text(panel.x.label), **title}},
        "yaxis": {"title": {"text": text(panel.y.label), **title}},
        "zaxis": {"title": {"text": ""}, "range": list(color_ranges(chart)[surface.name])},
        "aspectmode": "manual",
        "aspectratio": {"x": 1, "y": 1, "z": 0.7},
        "camera": {"eye": {"x": 1.8, "y": -1.8, "z": 1.2}, "center": {"x": 0, "y": 0, "z": -0.15}},
    }


def _ternary(place: PanelPlace) -> Json:
    """Build bare axes, with room around them for the names of the corners."""
    bare = {"title": {"text": ""}, "showticklabels": False, "ticks": "", "showgrid": False}
    (begin, end), (low, high) = place.x, place.y
    beside, above = 0.14 * (end - begin), 0.12 * (high - low)
    inner = {"x": [begin + beside, end - beside], "y": [low + above, high - above]}
    return {"sum": 1, "domain": inner, "bgcolor": "#ffffff", **{f"{axis_name}axis": bare for axis_name in "abc"}}


def _titles(chart: Chart, where: Frame) -> Iterator[Json]:
    for cell, panel in cells(chart).items():
        place = where.places[cell]
        if panel.title:
            words = text(panel.title, int(place.width / _LETTER))
            yield _words(f"<b>{words}</b>", (place.x[0] + place.x[1]) / 2, place.y[1], 4)
    if chart.title:
        first = any(panel.title for panel in chart.rows[0])
        yield _words(f"<b>{text(chart.title, int(WIDTH / _LETTER))}</b>", 0.5, 1.0, 4 + (TITLE if first else 0))


def _words(words: str, x: float, y: float, shift: int) -> Json:
    paper = {"xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom", "showarrow": False}
    return {"text": words, "x": x, "y": y, "yshift": shift, **paper}


def _coloring(chart: Chart) -> dict[str, str]:
    """Name the colour axis of each quantity."""
    return {name: f"coloraxis{at if at > 1 else ''}" for at, name in enumerate(color_ranges(chart), 1)}


def _color_axes(chart: Chart, where: Frame) -> Json:
    """Build a colour scale per quantity, with a colour bar beside the first row that shows it."""
    axes: Json = {}
    for cell, panel in cells(chart).items():
        for mark in panel.marks:
            if not isinstance(mark, HeatMap | Surface | Triangle) or _coloring(chart)[mark.name] in axes:
                continue
            low, high = where.places[cell].y
            room = int(where.places[cell].height / _LETTER)
            bar = {
                "title": {"text": text(mark.name, room), "side": "right", "font": {"size": 12}},
                "thickness": 12,
                "len": high - low,
                "y": (low + high) / 2,
                "x": 1.01 + 0.12 * sum(other["colorbar"]["y"] == (low + high) / 2 for other in axes.values()),
                "outlinewidth": 0,
            }
            ends = dict(zip(("cmin", "cmax"), color_ranges(chart)[mark.name], strict=True))
            axes[_coloring(chart)[mark.name]] = {"colorscale": "Cividis", **ends, "colorbar": bar}
    return axes


def _menus(chart: Chart, where: Frame) -> Iterator[Json]:
    """Build linear/logarithmic buttons above all panels, for each axis that supports both."""
    axis_names = [axis_name for axis_name in AXIS_NAMES if _switchable(chart, axis_name)]
    above = TITLE * (any(panel.title for panel in chart.rows[0]) + bool(chart.title)) + 10
    for at, axis_name in enumerate(axis_names):
        panels = _switchable(chart, axis_name)
        axes = {where.places[cell].axis_id(f"{axis_name}axis"): _axis(cells(chart)[cell], axis_name) for cell in panels}
        buttons = [
            {"label": f"{axis_name} {word}", "method": "relayout", "args": [_switch(axes, word == "log")]}
            for word in ("linear", "log")
        ]
        yield {
            "type": "buttons",
            "direction": "right",
            "buttons": buttons,
            "active": int(all(axis.log for axis in axes.values())),
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "pad": {"b": above, "l": 135 * at, "t": 0, "r": 0},
            "font": {"size": 11},
            "bgcolor": "#ffffff",
            "bordercolor": "#c8ccd0",
        }


def _switch(axes: dict[str, Axis], log: bool) -> Json:
    """Build a button's action: set the type of each axis, and its range (the chart's own, or automatic)."""
    change: Json = {}
    for name, axis in axes.items():
        change[f"{name}.type"] = "log" if log else "linear"
        if axis.limits and (not log or axis.limits[0] > 0):
            change[f"{name}.range"] = [_on_axis(limit, log) for limit in axis.limits]
        else:
            change[f"{name}.autorange"] = True
    return change


def _axis(panel: Panel, axis_name: AxisName) -> Axis:
    return panel.x if axis_name == "x" else panel.y


def _switchable(chart: Chart, axis_name: AxisName) -> list[Cell]:
    """Find panels with only lines and points and no negative values, unless they share the axis with others."""
    able = [cell for cell, panel in cells(chart).items() if _is_positive(panel, axis_name)]
    shared = {shared_axis(chart, cell, axis_name) for cell in cells(chart) if cell not in able} - {None}
    return [cell for cell in able if shared_axis(chart, cell, axis_name) not in shared]


def _is_positive(panel: Panel, axis_name: AxisName) -> bool:
    marks = [mark for mark in panel.marks if isinstance(mark, Line | Points)]
    if not marks or len(marks) < sum(not isinstance(mark, Rule) for mark in panel.marks):
        return False
    values = np.concatenate([part for mark in marks for part in _values(mark, axis_name)])
    return bool((values > 0).sum() > 1 and not (values < 0).any())


def _values(mark: Line | Points | Bars, axis_name: AxisName) -> Sequence[np.ndarray]:
    return (
        [mark.x]
        if axis_name == "x" and not isinstance(mark, Bars)
        else [part for part in (mark.y, mark.low, mark.high) if part is not None]
    )
