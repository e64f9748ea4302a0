"""A chart with other names on it: of its marks, categories, texts and titles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tiltmeter.reports.charts.chart import Bars, Chart, Mark, Panel, Points, Rule, Surface, Triangle


def renamed(chart: Chart, rename: Callable[[str], str]) -> Chart:
    """Put `rename(text)` in the place of every text on a chart. Two names must not become one."""
    rows = tuple(tuple(_panel(panel, rename) for panel in row) for row in chart.rows)
    return replace(chart, rows=rows, title=rename(chart.title))


def _panel(panel: Panel, rename: Callable[[str], str]) -> Panel:
    x, y = (replace(axis, label=rename(axis.label)) for axis in (panel.x, panel.y))
    return Panel(rename(panel.title), x, y, tuple(_mark(mark, rename) for mark in panel.marks))


def _mark(mark: Mark, rename: Callable[[str], str]) -> Mark:
    match mark:
        case Rule():
            return replace(mark, text=rename(mark.text))
        case Bars():
            return replace(mark, name=rename(mark.name), categories=tuple(map(rename, mark.categories)))
        case Points():
            texts, labels = (tuple(map(rename, part)) for part in (mark.texts, mark.labels))
            return replace(mark, name=rename(mark.name), texts=texts, labels=labels)
        case Triangle():
            top, left, right = map(rename, mark.corners)
            return replace(mark, name=rename(mark.name), corners=(top, left, right))
        case Surface():
            marked = tuple((rename(name), x, y, z) for name, x, y, z in mark.marked)
            return replace(mark, name=rename(mark.name), marked=marked)
        case _:
            return replace(mark, name=rename(mark.name))
