"""Find where curves cross a threshold by bisection, each curve at its own points, instead of measuring all steps.

A curve is a readout along the steps of a path; it can be measured one point at a time. The result is an *upward
crossing*: two adjacent steps, both measured, with the curve at or below the threshold at the first and above it at the
second. By convention every curve is below before the first step and above after the last, so a curve that is above at
the first step, or still below at the last, is reported as such only after it was measured there.

1. A few equally spaced steps are measured in ascending order until one is above: the *guard*.
2. The steps between the last one below and this one are bisected until two adjacent steps are left.
3. With a tolerance, the interval between these is bisected until it is no longer than that.

For a curve that crosses once, the result equals that of a scan of all steps (`shapes.crossing`). For a curve that
crosses several times, it is one of its upward crossings: the first, unless an excursion above the threshold, or back
below it, lies between two measured steps. A guard of all steps is the scan, ended at the first step above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator

from tiltmeter.runs.config import Configuration

Curves = Callable[[Int[np.ndarray, " row"], Float[np.ndarray, " row"]], Float[np.ndarray, " row"]]
"""Measures some curves (by index), each at its own point. NaN: this curve cannot be measured."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CrossingTarget(Configuration):
    """The threshold to find, and how carefully to search."""

    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """In units of the readout (Heimersheim & Mendel 2024: KL 0.5)."""
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Instead of `threshold`: a fraction of the curve's own value at the last step, which is measured first."""
    guard: Annotated[int, Field(ge=0)] = 4
    """Steps measured in ascending order before bisection begins."""
    tolerance: Positive | None = None
    """Longest allowed bracket, in units of the steps; None allows the distance of two adjacent steps."""

    @model_validator(mode="after")
    def _is_one(self) -> CrossingTarget:
        if (self.threshold is None) == (self.fraction is None):
            raise ValueError("give a threshold or a fraction, and only one of them")
        return self


class CrossingResult(NamedTuple):
    """Where each curve crosses the threshold."""

    at: Float[np.ndarray, " curve"]
    """The crossing, as in `shapes.crossing`: linear in the bracket; the first step if the curve is above already
    there. NaN if it was never above, or cannot be measured."""
    censored: Bool[np.ndarray, " curve"]
    """Whether the curve was above at no measured step, the last one included."""
    below: Float[np.ndarray, " curve"]
    """The end of the bracket at or below the threshold; NaN if the curve was not measured there. `above`: likewise."""
    above: Float[np.ndarray, " curve"]
    value_below: Float[np.ndarray, " curve"]
    """The readout there; with a fraction, relative to its value at the last step."""
    value_above: Float[np.ndarray, " curve"]
    points: Int[np.ndarray, " curve"]
    """Number of points of the curve that were measured."""


def find_crossings(
    curves: Curves, count: int, steps: Float[np.ndarray, " step"], goal: CrossingTarget
) -> CrossingResult:
    """Find where each of `count` curves crosses the threshold upwards, from few measured points.

    Args:
        curves: measures points; called once per round, for all curves not yet bracketed.
        count: number of curves.
        steps: the points of the path, increasing.
        goal: the threshold, and how carefully to search.
    """
    search = _Search(curves, count, steps, goal)
    for step in guard_steps(len(steps), goal.guard):
        search.ask(np.flatnonzero((search.below < step) & (step < search.above)), step)
    while len(rows := np.flatnonzero(search.above - search.below > 1)):
        search.ask(rows, (search.below + search.above)[rows] // 2)
    return search.refined(goal.tolerance)


def guard_steps(steps: int, guard: int) -> list[int]:
    """Indices of the guard's steps: equally spaced, without the ends of the path unless `guard` covers all steps."""
    return sorted({int(step) for step in np.linspace(-1, steps, min(guard, steps) + 2)[1:-1].round()})


class _Search:
    """The bracket of each curve so far: the last step known to be below, the first above, and the values there."""

    def __init__(self, curves: Curves, count: int, steps: Float[np.ndarray, " step"], goal: CrossingTarget) -> None:
        self.curves, self.steps = curves, steps
        self.below, self.above = np.full(count, -1), np.full(count, len(steps))
        self.low, self.high = np.full(count, np.nan), np.full(count, np.nan)
        self.points, self.scale, self.threshold = np.zeros(count, int), np.ones(count), goal.threshold or 0.0
        if goal.fraction is not None:
            ends = self._measure(np.arange(count), np.full(count, steps[-1]))
            self.scale = np.where(ends > 0, ends, np.nan)
            self.threshold = goal.fraction
            self._narrow(np.arange(count), np.full(count, len(steps) - 1), ends / self.scale)

    def ask(self, rows: Int[np.ndarray, " row"], at: Int[np.ndarray, " row"] | int) -> None:
        """Measure some curves, each at one step, and narrow their brackets."""
        if len(rows):
            at = np.broadcast_to(at, rows.shape)
            self._narrow(rows, at, self._measure(rows, self.steps[at]))

    def _measure(self, rows: Int[np.ndarray, " row"], at: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        self.points[rows] += 1
        return self.curves(rows, at) / self.scale[rows]

    def _narrow(
        self, rows: Int[np.ndarray, " row"], at: Int[np.ndarray, " row"], values: Float[np.ndarray, " row"]
    ) -> None:
        above = values > self.threshold
        self.above[rows[above]], self.high[rows[above]] = at[above], values[above]
        self.below[rows[~above]], self.low[rows[~above]] = at[~above], values[~above]
        lost = rows[np.isnan(values)]
        self.below[lost], self.above[lost], self.low[lost], self.high[lost] = -1, -1, np.nan, np.nan

    def refined(self, tolerance: float | None) -> CrossingResult:
        """Bisect the brackets down to the tolerance, and interpolate the crossings."""
        first = (self.below < 0) & (self.above == 0)
        censored = (self.below >= 0) & (self.above == len(self.steps))
        between = (self.below >= 0) & ~censored
        below = np.where(self.below >= 0, self.steps[self.below], np.nan)
        above = np.where(first | between, self.steps[np.minimum(self.above, len(self.steps) - 1)], np.nan)
        if tolerance is not None:
            self._bisect(below, above, tolerance)
        fraction = np.divide(self.threshold - self.low, self.high - self.low, out=np.zeros(len(below)), where=between)
        at = np.where(first, self.steps[0], below + fraction * (above - below))
        return CrossingResult(at, censored, below, above, self.low, self.high, self.points)

    def _bisect(self, below: Float[np.ndarray, " curve"], above: Float[np.ndarray, " curve"], tolerance: float) -> None:
        # Comparisons with NaN (no bracket) are false; adjacent floating-point numbers have no midpoint
        while len(rows := np.flatnonzero((above - below > tolerance) & (np.nextafter(below, above) < above))):
            middle = (below[rows] + above[rows]) / 2
            values = self._measure(rows, middle)
            lost = np.isnan(values)
            below[rows[lost]] = above[rows[lost]] = self.low[rows[lost]] = self.high[rows[lost]] = np.nan
            rows, middle, values = rows[~lost], middle[~lost], values[~lost]
            up = values > self.threshold
            above[rows[up]], self.high[rows[up]] = middle[up], values[up]
            below[rows[~up]], self.low[rows[~up]] = middle[~up], values[~up]
