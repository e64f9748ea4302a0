"""Charts of shape statistics over curves: plateau lengths, steepest steps and crossings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.analysis.shape_tables import shape_column, shape_table
from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.charts.chart import Axis, Chart, Histogram, Line, Panel
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


def cumulative(samples: Mapping[str, Shape]) -> tuple[Line, ...]:
    """Build cumulative fractions of curves. Censored curves count in the denominator, so lines may end below one."""
    style_of = styles(list(samples))
    found = []
    for name, sample in samples.items():
        values, counts = np.unique(sample.value[~np.isnan(sample.value)], return_counts=True)
        part = np.append(0, np.cumsum(counts)) / max(counts.sum() + sample.censored.sum(), 1)
        # two points per value draw a step function
        x, y = np.repeat(values, 2), np.repeat(part, 2)[1:-1]
        found.append(Line(name, x, y, style_of[name]))
    return tuple(found)


def panels(samples: Mapping[str, Shape], label: str) -> tuple[Panel, Panel]:
    """Build a histogram and a cumulative distribution side by side."""
    return (
        Panel("", Axis(label), Axis("curves"), histograms(samples)),
        Panel("", Axis(label), Axis("fraction of curves", limits=(0.0, 1.02)), cumulative(samples)),
    )


def distributions(curves: xr.Dataset, readout: str) -> Chart:
    """Plot where curves reach half their last value and where they are steepest, by direction.

    Rows: the two statistics. Columns: histogram and cumulative fraction of curves.
    """
    table = shape_table(curves, readout, fraction=0.5, statistics=("max_slope",))
    where = axis_label(curves.step)
    found = {}
    for column, label in (("relative_crossing_at", "halfway"), ("max_slope_at", "steepest")):
        parts = table.groupby("direction", sort=False)
        found[f"{label} at {where}"] = {str(name): shape_column(rows, column) for name, rows in parts}
    return Chart(tuple(panels(samples, label) for label, samples in found.items()), share=())
