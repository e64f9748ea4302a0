"""Sentences that compare directions: paired by sequence, at a level at which all comparisons of a sentence hold.

Comparisons are made at the measured step nearest to the length that was asked for, and the sentence states that step:
figures describe what was measured. Estimands of claims refuse a step that was not measured (`estimands.step_index`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tiltmeter.analysis.clusters import number_of
from tiltmeter.analysis.curves import documents_of
from tiltmeter.analysis.estimates import MIN_SEQUENCES
from tiltmeter.analysis.intervals import student_interval
from tiltmeter.reports.tables.format import three_digits

TOGETHER = "Paired by sequence; t intervals at the level of Bonferroni, so that all hold together with 95 %."

Pair = tuple[str, str]


def too_few(curves: xr.Dataset) -> str:
    """Why nothing is compared; empty where the sequences suffice."""
    sequences = curves.sizes["sequence"]
    if (n := number_of(documents_of(curves), sequences)) >= MIN_SEQUENCES:
        return ""
    what = "sequences" if n == sequences else "documents"
    return f"{n} {what} are too few to compare directions; measure at least {MIN_SEQUENCES}."


def compared_at_nearest(curves: xr.Dataset, readout: str, pairs: Sequence[Pair], lengths: Sequence[float]) -> str:
    """Compare the directions of each pair at the measured step nearest to each length, in a sentence that states it."""
    if few := too_few(curves):
        return few
    level = 1 - 0.05 / (len(pairs) * len(lengths))
    found = []
    for length in lengths:
        values = _per_sequence(at_nearest(curves[readout], length))
        words = "; ".join(_pair(values, pair, level) for pair in pairs)
        found.append(f"At {_place(curves, float(values.step))}: {words}.")
    return " ".join([f"Mean {curves[readout].attrs['long_name']}.", *found, TOGETHER])


def means_at_nearest(curves: xr.Dataset, readout: str, directions: Sequence[str], length: float) -> str:
    """Means of directions at the measured step nearest to a length: `isotropic 1.56, real-mixture 1.9`."""
    values = _per_sequence(at_nearest(curves[readout], length))
    return ", ".join(f"{name} {three_digits(float(values.sel(direction=name).mean()))}" for name in directions)


def at_nearest(values: xr.DataArray, length: float) -> xr.DataArray:
    """Values at the measured step nearest to a length; its `step` is the step that was measured."""
    return values.sel(step=length, method="nearest")


def verb(low: float, high: float) -> str:
    """How one direction compares with another, from the interval of their difference."""
    if np.isnan(low) or np.isnan(high):
        return "not comparable with"
    return "above" if low > 0 else "below" if high < 0 else "indistinguishable from"


def difference(values: xr.DataArray, pair: Pair, level: float) -> tuple[float, float]:
    """The interval of the mean over sequences of the difference of two directions."""
    one, other = (values.sel(direction=name) for name in pair)
    return student_interval((one - other).to_numpy().astype(np.float64), level, documents_of(values))


def _pair(values: xr.DataArray, pair: Pair, level: float) -> str:
    one, other = (float(values.sel(direction=name).mean()) for name in pair)
    low, high = difference(values, pair, level)
    interval = "" if np.isnan(low) or np.isnan(high) else f"; {low:+.3g} to {high:+.3g}"
    return f"{pair[0]} {verb(low, high)} {pair[1]} ({three_digits(one)} and {three_digits(other)}{interval})"


def _per_sequence(values: xr.DataArray) -> xr.DataArray:
    return values.mean("position") if "position" in values.dims else values


def _place(curves: xr.Dataset, step: float) -> str:
    name = curves.step.attrs["long_name"]
    return "the substitutes" if name == "substitution" else f"{name.rpartition(' ')[2]} {step:.3g}"
