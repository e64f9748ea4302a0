"""What the sequences of a run say about a number: its value, its interval, and whether it lies where a claim has it.

A `Estimand` is any number that can be computed from rows, one row a sequence: a ratio of means, a correlation over
tokens, a distance of distributions. Its interval comes from a bootstrap over sequences: rows are drawn again with
replacement, and the number is computed from each draw. A claim says in which `Region` the number lies; "no difference"
is a region around the value of no difference, as wide as the margin (Schuirmann 1987: two one-sided tests).

Two intervals are taken. The one that is shown is the bootstrap's own, BCa, at 95 %. The one that decides holds for many
quantities together at 95 % (Bonferroni); there the bootstrap has too few draws in its tails, so it is Student's, with
the bootstrap's standard error: of the logarithm for ratios, whose large denominators would otherwise make a small ratio
look certain, and Wilson's for parts of a whole, which are never certain.

Sequences count as independent. Where several are cut from one document, intervals are too narrow.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

CONFIDENCE = 0.95

RESAMPLES = 999

MIN_SEQUENCES = 10
"""With fewer sequences nothing is decided."""

Rows = Float[np.ndarray, "sequence ..."]
Statistic = Callable[[Rows], float]
Decision = Literal["inside", "outside", "undecided"]
Scale = Literal["difference", "ratio", "fraction"]
"""What errors of a number are like: as large wherever it is, proportional to it, or those of a part of a whole."""

MAX_UNDEFINED_DRAWS = 0.01
"""If the number is undefined in a larger fraction of the draws, nothing is decided: the extremes would be missing."""


class Region(NamedTuple):
    """The numbers that a claim allows; the bounds belong to it."""

    low: float
    high: float

    def __str__(self) -> str:
        """In words."""
        if math.isinf(self.high):
            return f"above {self.low:g}"
        return f"below {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"


ABOVE_ONE, BELOW_ONE = Region(1.0, math.inf), Region(-math.inf, 1.0)
ABOVE_ZERO, BELOW_ZERO = Region(0.0, math.inf), Region(-math.inf, 0.0)


class Estimand(NamedTuple):
    """A number that a claim is about."""

    label: str
    """What it is, for a table: `real: KL of difference ÷ mixture at length 16.3`."""
    rows: Rows
    """One row a sequence. A row of NaN alone is a sequence that was not measured; it is never drawn."""
    statistic: Statistic
    region: Region
    """Where the claim has it."""
    unit: str = ""
    scale: Scale = "difference"
    picked_from: int = 1
    """How many numbers this one was picked from, as the largest of several layers: all of them count as comparisons."""


class Estimate(NamedTuple):
    """A quantity, measured."""

    label: str
    value: float
    """NaN where it is not defined on these sequences."""
    low: float
    high: float
    """The 95 % interval."""
    joint_low: float
    joint_high: float
    """The interval at the level at which all quantities hold together."""
    region: Region
    n: int
    """Sequences."""
    unit: str = ""

    @property
    def decision(self) -> Decision | None:
        """Whether the number lies in its region; None where it is not defined or there are too few sequences."""
        if self.n < MIN_SEQUENCES or math.isnan(self.value):
            return None
        if self._is_no_difference:
            return "undecided"
        if self.region.low <= self.joint_low and self.joint_high <= self.region.high:
            return "inside"
        if self.joint_high < self.region.low or self.joint_low > self.region.high:
            return "outside"
        return "undecided"

    @property
    def _is_no_difference(self) -> bool:
        """Whether something is to be greater, but in every sequence the two are equal."""
        one_sided = math.isinf(self.region.low) != math.isinf(self.region.high)
        return one_sided and bool(self.joint_low == self.joint_high) and self.value in self.region

    @property
    def distance(self) -> float:
        """How far the number lies inside its region, in half widths of the deciding interval; negative outside."""
        error = max((self.joint_high - self.joint_low) / 2, 1e-300)
        return min(self.value - self.region.low, self.region.high - self.value) / error

    def __str__(self) -> str:
        """`2.04 [1.97, 2.11]`."""
        if math.isnan(self.value):
            return "not defined"
        return f"{self.value:.3g}{self.unit} [{self.low:.3g}, {self.high:.3g}]"


def estimate(quantity: Estimand, comparisons: int, seed: int = 0) -> Estimate:
    """Measure a quantity, with its intervals.

    Args:
        quantity: what to measure.
        comparisons: number of quantities whose deciding intervals hold simultaneously (Bonferroni).
        seed: of the draws.
    """
    rows = quantity.rows[~np.isnan(quantity.rows).reshape(len(quantity.rows), -1).all(axis=1)]
    n = len(rows)
    shown = joint = (math.nan, math.nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of a mean of nothing, in a draw: it is NaN
        value = float(_values(quantity.statistic, [rows])[0]) if n else math.nan
        if n > 1 and not math.isnan(value):
            shown, drawn = _bootstrap(quantity.statistic, rows, seed)
            joint = _joint(quantity, value, drawn, n, comparisons)
    return Estimate(quantity.label, value, *shown, *joint, quantity.region, n, quantity.unit)


def _joint(
    quantity: Estimand, value: float, drawn: Float[np.ndarray, " draw"], n: int, comparisons: int
) -> tuple[float, float]:
    """The interval that decides."""
    if np.isnan(drawn).mean() > MAX_UNDEFINED_DRAWS:
        return -math.inf, math.inf
    reach = float(stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * comparisons * quantity.picked_from), n - 1))
    if quantity.scale == "fraction" and 0 <= value <= 1:
        return _wilson(value, n, reach)
    # the bootstrap's draws are of a sample, whose spread is that much smaller
    reach *= math.sqrt(n / (n - 1))
    if quantity.scale == "ratio" and value > 0 and np.nanmin(drawn) > 0:
        factor = float(np.exp(reach * np.nanstd(np.log(drawn), ddof=1)))  # infinite for a few wild sequences
        return value / factor, value * factor
    error = reach * float(np.nanstd(drawn, ddof=1))
    return value - error, value + error


def _wilson(part: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's interval (1927) of a part of a whole."""
    centre, scale = part + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(part * (1 - part) / n + z * z / (4 * n * n))
    return (centre - half) / scale, (centre + half) / scale


def _values(statistic: Statistic, samples: Iterable[Rows]) -> Float[np.ndarray, " sample"]:
    """The number of each sample; NaN where it is none, as a ratio to zero or a quantile of nothing."""
    values = []
    for rows in samples:
        try:
            values.append(float(statistic(rows)))
        except ZeroDivisionError:
            values.append(math.nan)
    found = np.array(values)
    return np.where(np.isfinite(found), found, math.nan)


def _bootstrap(statistic: Statistic, rows: Rows, seed: int) -> tuple[tuple[float, float], Float[np.ndarray, " draw"]]:
    """Bounds of the BCa interval (percentile where that is not defined), and the draws."""

    def of_draws(indices: Int[np.ndarray, "*draw sequence"], axis: int) -> Float[np.ndarray, "*draw"]:
        assert axis == -1
        draws = indices.reshape(-1, indices.shape[-1])
        return _values(statistic, (rows[draw] for draw in draws)).reshape(indices.shape[:-1])

    found = stats.bootstrap(
        (np.arange(len(rows)),),
        of_draws,
        vectorized=True,
        method="BCa",
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(seed),
    )
    drawn = np.asarray(found.bootstrap_distribution, dtype=np.float64)
    low, high = found.confidence_interval
    if math.isnan(low) or math.isnan(high):
        tail = (1 - CONFIDENCE) / 2
        low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return (float(low), float(high)), drawn
