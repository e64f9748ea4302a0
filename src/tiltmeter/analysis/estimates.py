"""What the sequences of a run say about a number: its value, its interval, and whether it lies where a claim has it.

An `Estimand` is any number that can be computed from rows, one row a sequence: a ratio of means, a correlation over
tokens, a distance of distributions. A claim says in which `Region` the number lies; "no difference" is a region around
the value of no difference, as wide as the margin (Schuirmann 1987: two one-sided tests).

Intervals are t intervals corrected for skewness (`tiltmeter.analysis.t_intervals`), on the scale on which errors are
most nearly normal: the logarithm for ratios, Fisher's z for correlations. The standard error comes from a bootstrap
over sequences (rows are drawn again with replacement, and the number is computed from each draw), the skewness from
the jackknife (the number without one sequence). Parts of a whole have Wilson's interval: they are never certain.

Two intervals are taken. The one that is shown has 95 %. The one that decides holds for many quantities together at 95 %
(Bonferroni), and is wider than that level asks for (`careful_t`): a sample of a few sequences does not show its tail.
`scripts/decision_coverage.py` measures how often it is wrong, with light tails and with heavy ones.

Where several sequences are from one document, documents are drawn again and left out, with all their sequences, and
the degrees of freedom are theirs (`tiltmeter.analysis.clusters`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from tiltmeter.analysis.clusters import Documents, freedom, grouped, spread
from tiltmeter.analysis.intervals import student_interval
from tiltmeter.analysis.resampling import Rows, Statistic, bootstrap, jackknife, values
from tiltmeter.analysis.t_intervals import Spread, careful_t, skewed_t, skewness

CONFIDENCE = 0.95

RESAMPLES = 999

MIN_SEQUENCES = 10
"""With fewer sequences, or documents where several are from one, nothing is decided."""

Decision = Literal["inside", "outside", "undecided"]
Scale = Literal["difference", "ratio", "fraction", "order", "correlation"]
"""What errors of a number are like: as large wherever it is, proportional to it, or those of a part of a whole, of a
mean of parts of several pairs, or of a correlation."""

NO_EFFECT: dict[Scale, float] = {"difference": 0.0, "ratio": 1.0, "fraction": 0.5, "order": 0.5, "correlation": 0.0}
"""The number on each scale where nothing differs."""

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


class Place(NamedTuple):
    """Which step of a grid a number belongs to, if it is measured at every step."""

    series: str
    """What is the same at all steps: `KL: real-difference ÷ real-mixture`."""
    axis: str
    """`length`, `angle`."""
    at: float
    unit: str
    decides: bool
    """Whether the paper's words are tested at this step; the other steps say where else they hold."""


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
    documents: Documents | None = None
    """Which document each row is from; None where each is one of its own."""
    place: Place | None = None
    """Which step of a grid it belongs to, if every step is measured."""

    @property
    def decides(self) -> bool:
        """Whether a verdict rests on it."""
        return self.place is None or self.place.decides


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
    documents: int | None = None
    """Documents that the sequences are from; None where each counts for itself."""
    scale: Scale = "difference"
    place: Place | None = None

    @property
    def independent(self) -> int:
        """How many values count as independent: documents, or sequences."""
        return self.n if self.documents is None else self.documents

    @property
    def decides(self) -> bool:
        """Whether a verdict rests on it."""
        return self.place is None or self.place.decides

    @property
    def is_reversed(self) -> bool:
        """Whether it lies beyond no effect, on the side opposite to the claimed one."""
        none = NO_EFFECT[self.scale]
        if self.region.low >= none:
            return self.joint_high < none
        return self.region.high <= none and self.joint_low > none

    @property
    def decision(self) -> Decision | None:
        """Whether the number lies in its region; None if it is not defined, or of too few sequences or documents."""
        if self.independent < MIN_SEQUENCES or math.isnan(self.value):
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
    measured = ~np.isnan(quantity.rows).reshape(len(quantity.rows), -1).all(axis=1)
    rows, documents = quantity.rows[measured], quantity.documents
    numbers = None if documents is None else grouped(documents[measured])
    n = len(rows)
    shown = joint = (math.nan, math.nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of a mean of nothing, in a draw: it is NaN
        value = float(values(quantity.statistic, [rows])[0]) if n else math.nan
        if n > 1 and not math.isnan(value):
            shown, joint = _intervals(quantity, rows, numbers, value, comparisons, seed)
    found = None if numbers is None else int(numbers.max()) + 1
    return Estimate(
        quantity.label, value, *shown, *joint, quantity.region, n, quantity.unit, found, quantity.scale, quantity.place
    )


def _intervals(
    quantity: Estimand, rows: Rows, documents: Documents | None, value: float, comparisons: int, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The interval that is shown, and the one that decides."""
    sizes = None if documents is None else np.bincount(documents)
    n = len(rows) if sizes is None else len(sizes)
    free = float(n - 1) if sizes is None else freedom(sizes)
    level = 1 - (1 - CONFIDENCE) / (comparisons * quantity.picked_from)
    if quantity.scale == "fraction" and 0 <= value <= 1:
        shown, joint = (float(stats.t.ppf((1 + one) / 2, free)) for one in (CONFIDENCE, level))
        size = float(len(rows)) if documents is None else _effective(rows, documents)
        return _wilson(value, size, shown), _wilson(value, size, joint)
    if quantity.scale == "order":
        return _of_order(rows, documents, CONFIDENCE), _of_order(rows, documents, level)
    members = _members(documents)
    drawn = bootstrap(quantity.statistic, rows, members, RESAMPLES, seed)
    without = jackknife(quantity.statistic, rows, members)
    to, back = _scale(quantity.scale, value, drawn, without)
    # the bootstrap's draws are of a sample, whose spread is that much smaller
    deviation = np.asarray(np.nanstd(to(drawn), ddof=1) * n / math.sqrt(n - 1))
    found, centre = Spread(deviation, _skewness_of(-to(without)), n, free), np.asarray(to(value))
    (low, high), (joint_low, joint_high) = skewed_t(centre, found, CONFIDENCE), careful_t(centre, found, level)
    if max(np.isnan(drawn).mean(), np.isnan(without).mean()) > MAX_UNDEFINED_DRAWS:
        return (float(back(low)), float(back(high))), (-math.inf, math.inf)
    return (float(back(low)), float(back(high))), (float(back(joint_low)), float(back(joint_high)))


def _members(documents: Documents | None) -> list[np.ndarray] | None:
    """The sequences of each document; None where each sequence counts for itself."""
    if documents is None:
        return None
    order = np.argsort(documents, kind="stable")
    return np.split(order, np.cumsum(np.bincount(documents))[:-1])


def _effective(rows: Rows, documents: Documents) -> float:
    """How many independent sequences would know a fraction as well; the documents where all rows are equal."""
    values = np.nanmean(rows.reshape(len(rows), -1), axis=1)
    of_documents, alone = spread(values, documents), spread(values, None)
    if not of_documents.deviation > 0:
        return float(of_documents.n)
    ratio = float((alone.deviation**2 / alone.n) / (of_documents.deviation**2 / of_documents.n))
    return len(rows) * min(1.0, ratio)


def _skewness_of(influence: Float[np.ndarray, " sequence"]) -> Float[np.ndarray, ""]:
    """Skewness of how much each sequence moves the number; 0 where none does."""
    known = influence[~np.isnan(influence)]
    if len(known) < 3 or np.ptp(known) == 0:
        return np.zeros(())
    return np.asarray(skewness(known - known.mean()))


def _scale(
    scale: Scale, value: float, drawn: Float[np.ndarray, " draw"], without: Float[np.ndarray, " sequence"]
) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """The scale on which errors are nearly normal, and its inverse."""
    every = np.concatenate([[value], drawn, without])
    if scale == "ratio" and np.nanmin(every) > 0:
        return np.log, np.exp
    if scale == "correlation" and np.nanmax(np.abs(every)) < 1:
        return np.arctanh, np.tanh
    return np.asarray, np.asarray


def _of_order(rows: Rows, documents: Documents | None, level: float) -> tuple[float, float]:
    """Student's interval of the mean of parts, with one more sequence that is in no order.

    So equal parts are never certain: a perfect order in all of ten sequences does not exclude another one in the next.
    Agresti & Coull (1998) do the same for one part.
    """
    parts = np.append(rows.ravel(), NO_EFFECT["order"])
    low, high = student_interval(parts, level, None if documents is None else np.append(documents, documents.max() + 1))
    return max(low, 0.0), min(high, 1.0)


def _wilson(part: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval (1927) of a part of a whole."""
    centre, scale = part + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(part * (1 - part) / n + z * z / (4 * n * n))
    return (centre - half) / scale, (centre + half) / scale
