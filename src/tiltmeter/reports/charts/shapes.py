"""Charts of shape statistics over curves: plateau lengths, steepest steps and crossings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.analysis.shape_tables import shape_column, shape_table
from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.charts.chart import Axis, Chart, Histogram, Line, Panel, Rule
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.styles import styles

BINS = 30


def histograms(samples: Mapping[str, Shape]) -> tuple[Histogram, ...]:
    """Build histograms with common bins over the range of all samples. Censored curves fall in no bin."""
    known = [sample.value[~np.isnan(sample.value)] for sample in samples.values()]
    edges = _edges(np.concatenate(known))
    style_of = styles(list(samples))
    return tuple(
        Histogram(name, edges, np.histogram(values, edges)[0].astype(float), style_of[name])
        for name, values in zip(samples, known, strict=True)
    )


def _edges(values: Float[np.ndarray, " value"]) -> Float[np.ndarray, " edge"]:
    """Return the edges of 30 bins. For integers, at most 30 bins of equally many integers, to avoid artefacts."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    if np.array_equal(values, values.round()):
        width = np.ceil((high - low + 1) / BINS)
        return low - 0.5 + width * np.arange(np.ceil((high - low + 1) / width) + 1)
    return np.linspace(low, high, BINS + 1)


def cumulative(samples: Mapping[str, Shape], reach: tuple[float, float] | None = None) -> tuple[Line, ...]:
    """Build cumulative fractions of curves. Censored curves count in the denominator, so lines may end below one.

    Args:
        samples: a statistic of each curve, by name.
        reach: where paths begin and end, and all lines with them; without it, a line spans its values.
    """
    style_of = styles(list(samples))
    found = []
    for name, sample in samples.items():
        values, counts = np.unique(sample.value[~np.isnan(sample.value)], return_counts=True)
        part = np.append(0, np.cumsum(counts)) / max(counts.sum() + sample.censored.sum(), 1)
        # two points per value draw a step function
        x, y = np.repeat(values, 2), np.repeat(part, 2)[1:-1]
        if reach:
            x, y = np.concatenate([reach[:1], x, reach[1:]]), np.concatenate([[0.0], y, part[-1:]])
        found.append(Line(name, x, y, style_of[name]))
    return tuple(found)


def panels(samples: Mapping[str, Shape], label: str, reach: tuple[float, float] | None = None) -> tuple[Panel, Panel]:
    """Build a histogram and a cumulative distribution side by side."""
    return (
        Panel("", Axis(label), Axis("curves"), histograms(samples)),
        _cumulative_panel(samples, label, reach),
    )


def distributions(curves: xr.Dataset, readout: str) -> Chart:
    """Plot where curves reach half their last value and where they are steepest: cumulative fractions of curves.

    A column for each of the two statistics, a line for each direction. A rule marks the last step: a curve that is
    steepest there may be steeper beyond. Numbers of curves that do not have a statistic (censored) are in the title.
    """
    table = shape_table(curves, readout, fraction=0.5, statistics=("max_slope",))
    where, steps = axis_label(curves.step), curves.step.to_numpy()
    reach = float(steps.min()), float(steps.max())
    found = []
    for column, label in (("relative_crossing_at", "halfway"), ("max_slope_at", "steepest")):
        parts = table.groupby("direction", sort=False)
        samples = {str(name): shape_column(rows, column) for name, rows in parts}
        panel = _cumulative_panel(samples, f"{label} at {where}", reach)
        end = Rule(reach[1], text="end of the path")
        above = replace(panel.y, limits=(0.0, 1.12))  # room for the label of the rule
        found.append(replace(panel, title=censored_title(samples), y=above, marks=(*panel.marks, end)))
    return Chart((tuple(found),), share=("y",))


def censored_title(samples: Mapping[str, Shape]) -> str:
    """Count the censored curves of each sample, in the order of the legend; empty if there are none."""
    counts = [int(sample.censored.sum()) for sample in samples.values()]
    return f"censored: {', '.join(map(str, counts))}" if any(counts) else ""


def _cumulative_panel(samples: Mapping[str, Shape], label: str, reach: tuple[float, float] | None) -> Panel:
    return Panel("", Axis(label), Axis("fraction of curves", limits=(0.0, 1.02)), cumulative(samples, reach))
