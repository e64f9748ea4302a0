"""Student's interval of a mean, and one that is corrected for skewness.

Student's interval of the mean of skewed values misses it too often, and on one side: the sample mean and the sample
deviation are correlated. Hall (1992, "On the removal of skewness by transformation", J. R. Stat. Soc. B 54) transforms
W = (mean - truth) / s to a variable without skewness,

    √n (W + γ W²/3 + γ² W³/27 + γ/(6n)),

which is monotone, so the interval is found by inverting it; here at Student's quantiles instead of the normal ones.
The interval returned is the smallest that contains both this one and Student's: the first covers skewed values, the
second symmetric ones with heavy tails, where a sample's skewness is noise. `scripts/interval_coverage.py` measures it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from scipy import stats

MOST_FREEDOM = 8.0
"""The most degrees of freedom of the interval that decides."""

_SYMMETRIC = 1e-6
"""At a smaller skewness the transformation is the identity, to more digits than the inversion has."""


Bounds = tuple[Float64[np.ndarray, "*batch"], Float64[np.ndarray, "*batch"]]


class Spread(NamedTuple):
    """What an interval of means needs to know of the values averaged."""

    deviation: Float[np.ndarray, "*batch"]
    """The standard error times √n."""
    skew: Float[np.ndarray, "*batch"]
    n: int
    """How many values count as independent, at least 2."""
    freedom: float
    """Degrees of freedom of the deviation."""


def skewness(centred: Float64[np.ndarray, "*batch sequence"]) -> Float64[np.ndarray, "*batch"]:
    """Adjusted Fisher-Pearson skewness of values whose mean is zero: 0 for two values, NaN for equal ones."""
    n = centred.shape[-1]
    scale = np.abs(centred).max(axis=-1, keepdims=True)  # cubes of tiny or huge values would leave float64
    with np.errstate(invalid="ignore"):
        units = centred / scale
    plain = (units**3).mean(axis=-1) / (units**2).mean(axis=-1) ** 1.5
    return np.asarray(plain * np.sqrt(n * (n - 1)) / max(n - 2, 1))


def student_t(mean: Float[np.ndarray, "*batch"], spread: Spread, confidence: float) -> Bounds:
    """Student's interval of a mean: its bounds, at a coverage probability between 0 and 1."""
    reach = stats.t.ppf((1 + confidence) / 2, spread.freedom) * spread.deviation / np.sqrt(spread.n)
    return np.asarray(mean - reach), np.asarray(mean + reach)


def skewed_t(mean: Float[np.ndarray, "*batch"], spread: Spread, confidence: float) -> Bounds:
    """The interval of a mean that is corrected for skewness: its bounds, at a coverage probability between 0 and 1."""
    deviation, skew, n, freedom = spread
    reach = stats.t.ppf((1 + confidence) / 2, freedom)
    skew = np.where(np.abs(skew) < _SYMMETRIC, _SYMMETRIC, skew)

    def inverted(z: float) -> Float64[np.ndarray, "*batch"]:
        return np.asarray(3 / skew * (np.cbrt(1 + skew * (z / np.sqrt(n) - skew / (6 * n))) - 1))

    student = reach / np.sqrt(n)
    below, above = np.maximum(inverted(reach), student), np.minimum(inverted(-reach), -student)
    return np.asarray(mean - deviation * below), np.asarray(mean - deviation * above)


def careful_t(mean: Float[np.ndarray, "*batch"], spread: Spread, confidence: float) -> Bounds:
    """An interval of a mean that is seldom wrong where tails are heavy, at the small levels of many tests: its bounds.

    As `skewed_t`, with twice the skewness, which a sample without its tail shows too little of, and with a quarter of
    the degrees of freedom, at most `MOST_FREEDOM`. Both numbers were chosen by `scripts/decision_coverage.py`: a mean
    at the border is then decided wrongly about as often as designed, or less, and clear effects need more than a dozen
    values.
    """
    fewer = min(spread.freedom / 4, MOST_FREEDOM)
    return skewed_t(mean, spread._replace(skew=np.asarray(2 * spread.skew), freedom=fewer), confidence)
