"""Tables of a chart's numbers: all of them as CSV, a readable selection as LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tiltmeter.reports.charts.chart import (
    Bars,
    Chart,
    Dots,
    HeatMap,
    Histogram,
    Line,
    Mark,
    Points,
    Rule,
    Surface,
    Triangle,
    panel_names,
)
from tiltmeter.reports.tables import latex
from tiltmeter.reports.tables.wide import wide_tables

COLUMNS = (
    "panel",
    "mark",
    "series",
    "kind",
    "x",
    "x_end",
    "category",
    "y",
    "low",
    "high",
    "top",
    "left",
    "right",
    "value",
    "text",
)
"""`mark` is the index of the mark in its panel, since individual curves share a name. A histogram bin spans `x` to
`x_end`. `top`, `left` and `right` are weights in a triangle. `value` is the quantity shown by colour or height."""

_Columns = Mapping[str, Any]


def to_frame(chart: Chart) -> pd.DataFrame:
    """Return one row per point, bar, bin or grid cell, at full precision. Columns that no mark uses are dropped."""
    parts = []
    for panel, name in zip(chart.panels, panel_names(chart), strict=True):
        for number, mark in enumerate(panel.marks):
            for kind, columns in _columns(mark):
                series = mark.text if isinstance(mark, Rule) else mark.name
                parts.append(pd.DataFrame({"panel": name, "mark": number, "series": series, "kind": kind, **columns}))
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS[:4]))
    # Assembled by column, since pandas would turn columns missing from some part into floats.
    columns = {
        name: [value for part in parts for value in (part[name] if name in part else [None] * len(part))]
        for name in COLUMNS
        if any(name in part for part in parts)
    }
    return pd.DataFrame(columns).astype({name: float for name in columns if name in _NUMBERS})


_NUMBERS = ("x", "x_end", "y", "low", "high", "top", "left", "right", "value")


def to_csv(chart: Chart) -> bytes:
    """Write the frame as CSV in UTF-8. Equal charts yield equal bytes."""
    return to_frame(chart).to_csv(index=False, lineterminator="\n").encode()


def to_latex(chart: Chart, title: str) -> bytes:
    """Write one booktabs table per panel, with at most 14 evenly spaced rows."""
    tables = wide_tables(chart)
    captions = [f"{title}: {table.name}" if table.name else title for table in tables]
    return latex.document([latex.table(name, table.cells) for name, table in zip(captions, tables, strict=True)])


def _columns(mark: Mark) -> Iterator[tuple[str, _Columns]]:
    """Return the columns of a mark, which depend on the kind of mark."""
    match mark:
        case Line():
            yield "curve" if mark.thin else "line", {"x": mark.x, "y": mark.y, **_bounds(mark)}
        case Points():
            yield "point", {"x": mark.x, "y": mark.y, **_bounds(mark), **_texts(mark.texts)}
        case Bars():
            yield (
                "dot" if isinstance(mark, Dots) else "bar",
                {"category": list(mark.categories), "y": mark.y, **_bounds(mark)},
            )
        case Histogram():
            yield "bin", {"x": mark.edges[:-1], "x_end": mark.edges[1:], "y": mark.counts}
        case HeatMap() | Surface():
            x, y = np.meshgrid(mark.x, mark.y)
            yield "cell", {"x": x.ravel(), "y": y.ravel(), "value": mark.z.ravel()}
            if isinstance(mark, Surface) and mark.marked:
                names, *place = zip(*mark.marked, strict=True)
                yield "marked", {"text": names, **dict(zip(("x", "y", "value"), place, strict=True))}
        case Triangle():
            weights = dict(zip(("top", "left", "right"), mark.weights.T, strict=True))
            yield "blend", {**weights, "value": mark.values}
            corners = dict(zip(("top", "left", "right"), np.eye(3), strict=True))
            yield "corner", {**corners, "text": list(mark.corners)}
        case Rule():
            yield "rule", {mark.across: [mark.at]}


def _bounds(mark: Line | Points | Bars) -> _Columns:
    return {name: bound for name in ("low", "high") if (bound := getattr(mark, name)) is not None}


def _texts(texts: Sequence[str]) -> _Columns:
    return {"text": list(texts)} if texts else {}
