"""Statistics of a curve's shape: where it leaves its plateau, where it is steepest, where it stops being straight.

Every function takes curves [*batch, step] and counts in **steps**: the first value of a curve is step 0. A statistic
that the curve does not reach is **censored**: NaN, and marked, since it lies somewhere after the last step. (The
published code of Giglemiani et al. 2024 uses 99, 100 or the number of steps instead, which then enter means and
distances.) A curve with a value that is not finite, or with too few steps for the definition, was **not measured**:
NaN, and not marked.

`stop` is the number of steps of each curve that count: Giglemiani et al. read a curve no further than the
activation that it is aimed at, floor(distance / step) steps.

The statistics that count steps assume equally spaced steps, and all of them assume a readout that grows from zero, as
`kl`, `js` and `l2@SITE` do.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from tiltmeter.errors import TiltmeterError

Stops = Int[np.ndarray, "*batch"] | None

_FIRST_AUC_STEP = 5


class Shape(NamedTuple):
    """A statistic of each curve. NaN where it is censored (marked) and where nothing was measured (not marked)."""

    value: Float[np.ndarray, "*batch"]
    censored: Bool[np.ndarray, "*batch"]

    @property
    def value_or_inf(self) -> Float[np.ndarray, "*batch"]:
        """The values, infinite where censored: later than every curve that gets there."""
        return np.where(self.censored, np.inf, self.value)


class _Counted(NamedTuple):
    """Curves, zero where a value does not count; which values count; and which curves were measured."""

    values: Float[np.ndarray, "*batch step"]
    counts: Bool[np.ndarray, "*batch step"]
    ends: Int[np.ndarray, "*batch"]
    measured: Bool[np.ndarray, "*batch"]


def max_slope_step(values: Float[np.ndarray, "*batch step"], min_slope: float = 0.02, stop: Stops = None) -> Shape:
    """The step that the steepest rise leads to (MS step, Giglemiani et al. 2024): argmax of v[n] − v[n−1].

    The last of several equal ones. Censored where no rise exceeds `min_slope` (units of the readout per step); needs 2
    steps. The published code gives 99 there, fails below 2 steps, and breaks ties with an unstable sort; it pads the
    differences on the left by the first of them, so that, as here, n belongs to the end of the rise (its drafts do not:
    one step less).
    """
    curves = _counted(values, stop, needed=2)
    rises = np.where(curves.counts[..., 1:], np.diff(curves.values), -np.inf)
    last = rises.shape[-1] - np.argmax(rises[..., ::-1], axis=-1)
    return _shape(curves, rises.max(axis=-1) > min_slope, last)


def plateau_step(values: Float[np.ndarray, "*batch step"], threshold: float, stop: Stops = None) -> Shape:
    """The first step with v[n] ≥ `threshold` (AP step, the end of the activation plateau; Giglemiani et al. 2024).

    `threshold` is in units of the readout: 20 in the published code, for the L2 distance at the last block of GPT-2,
    and arbitrary elsewhere; for a fraction of the value at the end of the path pass `relative(values)`. Censored where
    there is no such step (100 in the published code); needs 1 step.
    """
    curves = _counted(values, stop, needed=1)
    return _first(curves, curves.values >= threshold)


def auc_step(values: Float[np.ndarray, "*batch step"], stop: Stops = None) -> Shape:
    """Where the curve sags most below a straight line (AUC step, Giglemiani et al. 2024, appendix B).

    argmax of r[n], the first of equal ones, from n = 5 to the last step but one, where r[n] is the triangle
    v[n] (n + 1) / 2 over the area under the curve up to n, by trapezoids, and 0 where that area is 0. The triangle of
    the published code, kept here, is one step wider than the area, so that a straight line has r = (n + 1) / n and the
    step 5, not none. Censored where no r is positive (5 in the published code); needs 7 steps (it fails below).
    """
    curves = _counted(values, stop, needed=_FIRST_AUC_STEP + 2)
    step = np.arange(curves.values.shape[-1])
    area = np.zeros_like(curves.values)
    np.cumsum((curves.values[..., 1:] + curves.values[..., :-1]) / 2, axis=-1, out=area[..., 1:])
    ratio = np.divide(curves.values * (step + 1) / 2, area, out=np.zeros_like(area), where=area != 0)
    candidate = (step >= _FIRST_AUC_STEP) & (step <= curves.ends[..., None] - 2)
    ratio = np.where(candidate, ratio, -np.inf)
    return _shape(curves, ratio.max(axis=-1) > 0, np.argmax(ratio, axis=-1))


def nonlinearity_step(
    values: Float[np.ndarray, "*batch step"], tolerance: float = 0.2, fit: int = 10, stop: Stops = None
) -> Shape:
    """The last step before the curve leaves the straight line that it begins with (NL step, Giglemiani et al. 2024).

    n − 1 for the first n ≥ `fit` with |v[n] − line[n]| > `tolerance` |line[n]|, the line through v[0] and v[fit − 1].
    Censored where there is none; needs `fit` + 1 steps. The published code gives the number of steps there, fails below
    fit + 1, and never ends on a line below zero (it divides by the line, not by its size); its drafts give n, or wait
    for a distance of 20 as well.

    Raises:
        TiltmeterError: a `fit` below 2, through which there is no line.
    """
    if fit < 2:
        raise TiltmeterError(f"fit is {fit}; a line needs 2 steps or more: 10 in the published code.")
    curves = _counted(values, stop, needed=fit + 1)
    step = np.arange(curves.values.shape[-1])
    first = curves.values[..., :1]
    line = first + (curves.values[..., fit - 1 : fit] - first) / (fit - 1) * step
    away = (np.abs(curves.values - line) > tolerance * np.abs(line)) & (step >= fit)
    found = _first(curves, away)
    return found._replace(value=found.value - 1)


def crossing(
    values: Float[np.ndarray, "*batch step"],
    steps: Float[np.ndarray, " step"],
    threshold: float,
    stop: Stops = None,
) -> Shape:
    """The length or angle where the curve passes `threshold` (units of `steps`; Heimersheim & Mendel 2024: KL 0.5).

    Linear between the last step at or below and the first one above; `steps[0]` where the first value is already above.
    The paper takes the smallest scanned value above, which is later, by up to one step and by about half of one on
    average. Where a curve bends upwards between two steps, the true crossing lies between the two. Censored where no
    value is above; needs 1 step.

    Raises:
        TiltmeterError: `steps` are not increasing.
    """
    if not np.all(np.diff(steps) > 0):
        raise TiltmeterError("the steps of a crossing do not grow; sort the curves by their steps first.")
    curves = _counted(values, stop, needed=1)
    above = curves.counts & (curves.values > threshold)
    after = np.argmax(above, axis=-1)
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(curves.values, n[..., None], axis=-1)[..., 0] for n in (before, after))
    fraction = np.divide(threshold - low, high - low, out=np.zeros(after.shape), where=after > 0)
    return _shape(curves, above.any(axis=-1), steps[before] + fraction * (steps[after] - steps[before]))


def relative(values: Float[np.ndarray, "*batch step"], stop: Stops = None) -> Float[np.ndarray, "*batch step"]:
    """Each curve as a fraction of its value at the end of the path (at its last step that counts).

    NaN where that value is not above zero: such a curve was not measured.
    """
    curves = _counted(values, stop, needed=1)
    end = np.take_along_axis(curves.values, np.maximum(curves.ends, 1)[..., None] - 1, axis=-1)
    return np.divide(values, end, out=np.full(values.shape, np.nan), where=(end > 0) & curves.measured[..., None])


def ks_distance(a: Shape | Float[np.ndarray, "..."], b: Shape | Float[np.ndarray, "..."]) -> float:
    """Two-sample Kolmogorov-Smirnov distance, the largest difference of the two cumulative distributions, 0 to 1.

    NaN is left out; NaN if nothing is left. A censored curve counts as later than every step (in a plain array: inf),
    so only differences up to the last step count, among them that of the censored fractions. A curve cut short by
    its own `stop` counts as later than all, too. The published code has its sentinel values in the same place.
    """
    first, second = np.sort(censored_last(a)), np.sort(censored_last(b))
    if not (first.size and second.size):
        return float("nan")
    # scipy's ks_2samp takes ten times as long, and a bootstrap calls this thousands of times.
    both = np.concatenate([first, second])
    past = [np.searchsorted(sample, both, side="right") / sample.size for sample in (first, second)]
    return float(np.abs(past[0] - past[1]).max())


def separation_auc(a: Shape | Float[np.ndarray, "..."], b: Shape | Float[np.ndarray, "..."]) -> float:
    """P(a < b) + P(a = b) / 2, the area under the ROC curve: 0.5 for equal samples, 1 where all of `b` are later.

    NaN is left out; NaN if nothing is left. A censored curve (in a plain array: inf) counts as later than every one
    that is not, and two censored ones as equal.
    """
    first, second = censored_last(a), censored_last(b)
    if not (first.size and second.size):
        return float("nan")
    ranks = stats.rankdata(np.concatenate([first, second]))[first.size :].sum()
    return float((ranks - second.size * (second.size + 1) / 2) / (first.size * second.size))


def censored_last(sample: Shape | Float[np.ndarray, "..."]) -> Float[np.ndarray, " curve"]:
    """The measured values as a flat array, with infinity for each censored curve."""
    found = sample.value_or_inf if isinstance(sample, Shape) else np.asarray(sample)
    return found[~np.isnan(found)]


def _counted(values: Float[np.ndarray, "*batch step"], stop: Stops, needed: int) -> _Counted:
    """Determine which values count; curves with fewer steps than `needed` are padded with values that do not."""
    steps = values.shape[-1]
    ends = np.full(values.shape[:-1], steps) if stop is None else np.clip(stop, 0, steps)
    counts = np.arange(max(steps, needed)) < ends[..., None]
    held = np.pad(values.astype(np.float64), [(0, 0)] * (values.ndim - 1) + [(0, max(0, needed - steps))])
    measured = np.asarray((ends >= needed) & np.all(np.isfinite(held) | ~counts, axis=-1))
    return _Counted(np.where(counts & measured[..., None], held, 0.0), counts, np.asarray(ends), measured)


def _first(curves: _Counted, holds: Bool[np.ndarray, "*batch step"]) -> Shape:
    """The first step that counts at which the condition holds."""
    holds = holds & curves.counts
    return _shape(curves, holds.any(axis=-1), np.argmax(holds, axis=-1))


def _shape(curves: _Counted, found: Any, value: Any) -> Shape:
    return Shape(np.where(curves.measured & found, value, np.nan), np.asarray(curves.measured & ~found))
