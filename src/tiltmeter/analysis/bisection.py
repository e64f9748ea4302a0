"""Where curves pass a threshold, from a few of their points instead of all: bisection, every curve at its own point.

A curve is a readout on the steps of a path, and can be measured one point at a time. What is found is an *upward
crossing*: two steps, next to each other, with the curve at or below the threshold at the one and above it at the next,
both measured. Before the first step every curve counts as below and behind the last as above, so that a curve that is
above at the first step, or still below at the last, is found to be so by having been measured there.

1. A few steps, equally far apart, are measured in ascending order, until one is above: the *guard*.
2. The steps between the last one below and this one are halved until two neighbours are left.
3. With a tolerance, the piece of path between these is halved until it is no longer than that.

Where a curve passes the threshold once, this is what a scan of all steps gives (`shapes.crossing`). Where it passes it
several times, it is one of its upward crossings: the first, unless an excursion above the threshold, or back below it,
lies between two steps that were measured. A guard of all steps is the scan, read in ascending order up to there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator

from tiltmeter.runs.config import Configuration

Curves = Callable[[Int[np.ndarray, " row"], Float[np.ndarray, " row"]], Float[np.ndarray, " row"]]
"""The values of some curves (by number), each at a point of its own. NaN: this curve cannot be measured."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CrossingTarget(Configuration):
    """What is looked for, and how carefully."""

    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """In units of the readout (Heimersheim & Mendel 2024: KL 0.5)."""
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Instead: of the curve's own value at the last step, which is measured first."""
    guard: Annotated[int, Field(ge=0)] = 4
    """Steps that are measured in ascending order before halving begins."""
    tolerance: Positive | None = None
    """How long a bracket may be, in units of the steps; without it, from one step to the next."""

    @model_validator(mode="after")
    def _is_one(self) -> CrossingTarget:
        if (self.threshold is None) == (self.fraction is None):
            raise ValueError("give a threshold or a fraction, and only one of them")
        return self


class CrossingResult(NamedTuple):
    """Where each curve was found to pass the threshold."""

    at: Float[np.ndarray, " curve"]
    """As `shapes.crossing` has it: linear in the bracket; the first step where the curve is above there. NaN where it
    was never above, or cannot be measured."""
    censored: Bool[np.ndarray, " curve"]
    """Not above at the last step, nor anywhere else that it was measured."""
    below: Float[np.ndarray, " curve"]
    """The bracket's ends. NaN where the curve was not measured at or below the threshold, or not above it."""
    above: Float[np.ndarray, " curve"]
    value_below: Float[np.ndarray, " curve"]
    """The readout there; with a fraction, as a share of its value at the last step."""
    value_above: Float[np.ndarray, " curve"]
    points: Int[np.ndarray, " curve"]
    """How many points of the curve were measured."""


def find_crossings(
    curves: Curves, count: int, steps: Float[np.ndarray, " step"], goal: CrossingTarget
) -> CrossingResult:
    """Find where each of `count` curves passes the threshold upwards, measuring as few points as this takes.

    Args:
        curves: measures them; asked once a round for all curves that are still looked for.
        count: how many curves there are.
        steps: the points of the path, growing.
        goal: what is looked for.
    """
    search = _Search(curves, count, steps, goal)
    for step in guard_steps(len(steps), goal.guard):
        search.ask(np.flatnonzero((search.below < step) & (step < search.above)), step)
    while len(rows := np.flatnonzero(search.above - search.below > 1)):
        search.ask(rows, (search.below + search.above)[rows] // 2)
    return search.refined(goal.tolerance)


def guard_steps(steps: int, guard: int) -> list[int]:
    """The numbers of the guard's steps: equally far apart, the ends of the path left out unless all are asked for."""
    return sorted({int(step) for step in np.linspace(-1, steps, min(guard, steps) + 2)[1:-1].round()})


class _Search:
    """What is known of each curve: the last step known to be below, the first above, and the values there."""

    def __init__(self, curves: Curves, count: int, steps: Float[np.ndarray, " step"], goal: CrossingTarget) -> None:
        self.curves, self.steps = curves, steps
        self.below, self.above = np.full(count, -1), np.full(count, len(steps))
        self.low, self.high = np.full(count, np.nan), np.full(count, np.nan)
        self.points, self.scale, self.threshold = np.zeros(count, int), np.ones(count), goal.threshold or 0.0
        if goal.fraction is not None:
            ends = self._measure(np.arange(count), np.full(count, steps[-1]))
            self.scale = np.where(ends > 0, ends, np.nan)
            self.threshold = goal.fraction
            self._tell(np.arange(count), np.full(count, len(steps) - 1), ends / self.scale)

    def ask(self, rows: Int[np.ndarray, " row"], at: Int[np.ndarray, " row"] | int) -> None:
        """Measure some curves at a step each."""
        if len(rows):
            at = np.broadcast_to(at, rows.shape)
            self._tell(rows, at, self._measure(rows, self.steps[at]))

    def _measure(self, rows: Int[np.ndarray, " row"], at: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        self.points[rows] += 1
        return self.curves(rows, at) / self.scale[rows]

    def _tell(
        self, rows: Int[np.ndarray, " row"], at: Int[np.ndarray, " row"], values: Float[np.ndarray, " row"]
    ) -> None:
        above = values > self.threshold
        self.above[rows[above]], self.high[rows[above]] = at[above], values[above]
        self.below[rows[~above]], self.low[rows[~above]] = at[~above], values[~above]
        lost = rows[np.isnan(values)]
        self.below[lost], self.above[lost], self.low[lost], self.high[lost] = -1, -1, np.nan, np.nan

    def refined(self, tolerance: float | None) -> CrossingResult:
        """Halve the brackets down to the tolerance, and read the crossings."""
        first = (self.below < 0) & (self.above == 0)
        censored = (self.below >= 0) & (self.above == len(self.steps))
        between = (self.below >= 0) & ~censored
        below = np.where(self.below >= 0, self.steps[self.below], np.nan)
        above = np.where(first | between, self.steps[np.minimum(self.above, len(self.steps) - 1)], np.nan)
        if tolerance is not None:
            self._halve(below, above, tolerance)
        share = np.divide(self.threshold - self.low, self.high - self.low, out=np.zeros(len(below)), where=between)
        at = np.where(first, self.steps[0], below + share * (above - below))
        return CrossingResult(at, censored, below, above, self.low, self.high, self.points)

    def _halve(self, below: Float[np.ndarray, " curve"], above: Float[np.ndarray, " curve"], tolerance: float) -> None:
        # NaN, an end that there is not, is no width; and between two neighbouring numbers there is no middle
        while len(rows := np.flatnonzero((above - below > tolerance) & (np.nextafter(below, above) < above))):
            middle = (below[rows] + above[rows]) / 2
            values = self._measure(rows, middle)
            lost = np.isnan(values)
            below[rows[lost]] = above[rows[lost]] = self.low[rows[lost]] = self.high[rows[lost]] = np.nan
            rows, middle, values = rows[~lost], middle[~lost], values[~lost]
            up = values > self.threshold
            above[rows[up]], self.high[rows[up]] = middle[up], values[up]
            below[rows[~up]], self.low[rows[~up]] = middle[~up], values[~up]
