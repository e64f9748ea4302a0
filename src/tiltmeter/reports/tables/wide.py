"""Compact tables of a chart for readers: one per panel, with series side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tiltmeter.reports.charts.chart import (
    Bars,
    Chart,
    HeatMap,
    Histogram,
    Line,
    Panel,
    Points,
    Surface,
    Triangle,
    panel_names,
)
from tiltmeter.reports.tables.format import evenly, with_interval

MOST_ROWS = 14
MOST_COLUMNS = 8
"""Maximum number of columns of a grid. Series are never dropped, however many there are."""


class WideTable(NamedTuple):
    """A table of text cells, for a panel or part of one."""

    name: str
    """Name of the panel. Empty for a chart with a single untitled panel."""
    cells: pd.DataFrame


def wide_tables(chart: Chart) -> list[WideTable]:
    """Build the tables of all panels. Of more than 14 rows, 14 evenly spaced ones are shown.

    Individual curves are summarised by their median and 5 % and 95 % quantiles over their common range, histograms by
    quartiles, grids by some of their rows and columns, and triangles by the blends nearest to corners, edges and
    centre.
    """
    return [
        WideTable(": ".join(filter(None, (name, what))), cells)
        for panel, name in zip(chart.panels, panel_names(chart), strict=True)
        for what, cells in _tables(panel)
    ]


def _tables(panel: Panel) -> Iterator[tuple[str, pd.DataFrame]]:
    """Build the tables of a panel, each with a note on what it shows."""
    for cells in _lines(panel):
        yield "", cells
    if bars := [mark for mark in panel.marks if isinstance(mark, Bars)]:
        yield "", _bars(panel, bars)
    if points := [mark for mark in panel.marks if isinstance(mark, Points)]:
        yield "", _points(panel, points)
    if histograms := [mark for mark in panel.marks if isinstance(mark, Histogram)]:
        yield "", _histograms(panel, histograms)
    for mark in panel.marks:
        if isinstance(mark, HeatMap | Surface):
            yield f"{mark.name}, by {panel.y.label or 'y'} (down) and {panel.x.label or 'x'} (across)", _grid(mark)
        elif isinstance(mark, Triangle):
            yield "", _triangle(mark)


def _lines(panel: Panel) -> Iterator[pd.DataFrame]:
    """Build one table for all lines that share their x values."""
    together: dict[bytes, dict[str, list[str]]] = {}
    for name, x, cells in [*_means(panel), *_curves(panel)]:
        columns, number = together.setdefault(x.tobytes(), {}), 1
        while (own := name if number == 1 else f"{name} ({number})") in columns:
            number += 1
        columns[own] = cells
    for places, columns in together.items():
        yield _chosen(columns, [f"{value:.4g}" for value in np.frombuffer(places)], panel.x.label)


def _means(panel: Panel) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    for mark in panel.marks:
        if isinstance(mark, Line) and not mark.thin:
            yield mark.name, mark.x, _cells(mark)


def _curves(panel: Panel) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Summarise individual curves, grouped by name."""
    groups: dict[str, list[Line]] = {}
    for mark in panel.marks:
        if isinstance(mark, Line) and mark.thin:
            groups.setdefault(mark.name, []).append(mark)
    for name, curves in groups.items():
        x, values = _same_places(curves)
        cells = [with_interval(*_quantiles(column)) for column in values.T]
        yield f"{name}, {len(curves)} curves: median [5 %, 95 %]", x, cells


def _same_places(curves: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """Return common x values and one row per curve, interpolated linearly over the common range if x values differ."""
    if all(np.array_equal(curve.x, curves[0].x) for curve in curves):
        return curves[0].x, np.stack([curve.y for curve in curves])
    start, end = max(curve.x.min() for curve in curves), min(curve.x.max() for curve in curves)
    x = np.linspace(start, max(start, end), MOST_ROWS)
    return x, np.stack([np.interp(x, curve.x[order := curve.x.argsort()], curve.y[order]) for curve in curves])


def _quantiles(values: np.ndarray) -> tuple[float, float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.nan, np.nan, np.nan
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    return float(middle), float(low), float(high)


def _bars(panel: Panel, marks: Sequence[Bars]) -> pd.DataFrame:
    """Tabulate categories by series, or in a single column if each bar has its own name as category."""
    own = all(set(mark.categories) <= {mark.name} for mark in marks)
    columns: dict[str, dict[str, str]] = {}
    for mark in marks:
        column = columns.setdefault(panel.y.label if own else mark.name, {})
        column.update(zip(mark.categories, _cells(mark), strict=True))
    rows = list(dict.fromkeys(name for mark in marks for name in mark.categories))
    return _chosen(
        {name: [column.get(row, "") for row in rows] for name, column in columns.items()}, rows, panel.x.label
    )


def _points(panel: Panel, marks: Sequence[Points]) -> pd.DataFrame:
    """Tabulate one row per point, sorted by x within a series, with hover texts if any."""
    rows = []
    for mark in marks:
        texts = mark.texts or ("",) * len(mark.x)
        points = sorted(zip(mark.x, _cells(mark), texts, strict=True), key=lambda point: float(point[0]))
        rows += [(mark.name, f"{x:.4g}", y, text) for x, y, text in points]
    chosen = [rows[at] for at in evenly(len(rows), MOST_ROWS)]
    width = 4 if any(mark.texts for mark in marks) else 3
    heads = [panel.x.label or "x", panel.y.label or "y", "what"][: width - 1]
    return pd.DataFrame([row[1:width] for row in chosen], [row[0] for row in chosen], heads, dtype=object)


def _histograms(panel: Panel, marks: Sequence[Histogram]) -> pd.DataFrame:
    """Tabulate the count and the quartiles, interpolated linearly within bins."""
    heads = [panel.y.label or "count", f"quartiles of {panel.x.label}"]
    rows = []
    for mark in marks:
        total = mark.counts.sum()
        part = np.concatenate([[0.0], mark.counts.cumsum()]) / (total or 1.0)
        low, middle, high = np.interp([0.25, 0.5, 0.75], part, mark.edges) if total else (np.nan,) * 3
        rows.append([f"{total:g}", with_interval(float(middle), float(low), float(high))])
    return pd.DataFrame(rows, [mark.name for mark in marks], heads)


def _grid(mark: HeatMap | Surface) -> pd.DataFrame:
    rows, columns = evenly(len(mark.y), MOST_ROWS), evenly(len(mark.x), MOST_COLUMNS)
    cells = [[_number(mark.z[row, column]) for column in columns] for row in rows]
    return pd.DataFrame(
        cells, [f"{value:.4g}" for value in mark.y[rows]], [f"{value:.4g}" for value in mark.x[columns]]
    )


def _triangle(mark: Triangle) -> pd.DataFrame:
    wanted = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]], float)
    wanted /= wanted.sum(1, keepdims=True)
    if not len(mark.values):
        return pd.DataFrame(columns=[*mark.corners, mark.name])
    nearest = list(dict.fromkeys(int(np.abs(mark.weights - one).sum(1).argmin()) for one in wanted))
    cells = [[f"{weight:.2f}" for weight in mark.weights[at]] + [_number(mark.values[at])] for at in nearest]
    names = [f"weight of {corner}" for corner in mark.corners]
    return pd.DataFrame(
        [row[1:] for row in cells], pd.Index([row[0] for row in cells], name=names[0]), [*names[1:], mark.name]
    )


def _chosen(columns: dict[str, list[str]], index: Sequence[str], corner: str) -> pd.DataFrame:
    chosen = evenly(len(index), MOST_ROWS)
    cells = {name: [column[at] for at in chosen] for name, column in columns.items()}
    return pd.DataFrame(cells, pd.Index([index[at] for at in chosen], name=corner), dtype=object)


def _cells(mark: Line | Points | Bars) -> list[str]:
    blank = np.full(len(mark.y), np.nan)
    low = blank if mark.low is None else mark.low
    high = blank if mark.high is None else mark.high
    return [with_interval(*map(float, row)) for row in zip(mark.y, low, high, strict=True)]


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:#.3g}".rstrip(".")
