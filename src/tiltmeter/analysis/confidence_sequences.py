"""Time-uniform confidence sequences: intervals of means that stay valid under optional stopping.

A fixed-n interval is invalid under optional stopping: whoever checks it after every shard and stops once it is narrow
enough misses the true mean more often than stated. The intervals here cover it at all n simultaneously, so also at
whatever n the sweep stops: exactly for normal values, for others asymptotically as the first look grows
(`scripts/stopping_coverage.py` measures how well). The interval of n sequences with standard deviation s (n - 1 degrees
of freedom) is

    mean ± s √((n - 1)/n · (a - 1)/(1 - a/h)),    h = 1 + n g,    a = (√h / α)^(2/n),

which is where the Bayes factor of Student's t statistic against an effect of N(0, g) in units of the standard
deviation (Gönen et al. 2005) reaches 1/α. That factor is a martingale, so by Ville's inequality it ever reaches 1/α
with probability at most α: exactly for normal values (Wang & Ramdas 2024, "Anytime-valid t-tests and confidence
sequences for Gaussian means with unknown variance"). With growing n it becomes, with ρ² = g,

    mean ± s √(2 (n ρ² + 1)/(n² ρ²) · log(√(n ρ² + 1)/α)),

which holds in the limit for any values with finite variance, as the central limit theorem does (Waudby-Smith, Arbour,
Sinha, Kennedy & Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences").
Unlike the limit, the formula used here accounts for the uncertainty of s itself.

Where several sequences are from one document, n is the number of documents and s/√n the cluster-robust standard error
of the mean over sequences (`tiltmeter.analysis.clusters`), which holds in the limit of many documents.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import lambertw

from tiltmeter.analysis.clusters import Documents, grouped, sums_by
from tiltmeter.analysis.intervals import MeanInterval
from tiltmeter.errors import TiltmeterError

FIRST_LOOK = 128
"""Sequences before the first look: enough for the central limit theorem (`scripts/stopping_coverage.py`)."""

TUNED_FOR = 500
"""The number of sequences at which the interval is narrowest; from 128 to 8,000 no other choice makes it narrower by
more than a tenth. It is a constant, and not the number asked for, so that equal data have equal intervals."""


def half_width(
    n: Int[np.ndarray, "*#batch"], deviation: Float64[np.ndarray, "*#batch"], confidence: float = 0.95
) -> Float64[np.ndarray, "*batch"]:
    """Half the width of the time-uniform interval of a mean, in units of the values; infinite if n is too small.

    Args:
        n: number of values averaged.
        deviation: their standard deviation, with n - 1 degrees of freedom.
        confidence: probability that the intervals of all n cover the true mean.

    Raises:
        TiltmeterError: `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise TiltmeterError(f"the confidence is {confidence}; give a number between 0 and 1, such as 0.95.")
    n = np.maximum(n, 1).astype(np.float64)
    h = 1 + n * _effect(1 - confidence) / TUNED_FOR
    above = np.expm1(2 / n * np.log(np.sqrt(h) / (1 - confidence)))  # a - 1, without cancellation for large n
    room = 1 - (1 + above) / h
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(room > 0, deviation * np.sqrt((n - 1) / n * above / room), np.inf)


def _effect(alpha: float) -> float:
    """The n g that makes the interval narrowest at n: where the derivative of the limit's width in ρ is zero."""
    return float(-lambertw(-(alpha**2) / np.e, -1).real - 1)


def sequential_mean(
    values: Float[np.ndarray, "*batch sequence"], confidence: float = 0.95, documents: Documents | None = None
) -> MeanInterval:
    """Average each curve over sequences, with its time-uniform interval.

    A NaN is a sequence that was not measured: it is left out of its curve. A curve of fewer than `FIRST_LOOK` sequences
    has a mean and no interval (NaN). If all values are equal the interval has zero width, up to rounding.

    Args:
        values: one number per sequence, in any unit; any number of curves. Their order must be
            independent of the values.
        confidence: probability that all intervals of a curve, from `FIRST_LOOK` sequences on, cover its true mean.
        documents: which document each sequence is from; None where each is one of its own.

    Raises:
        TiltmeterError: `confidence` is not between 0 and 1.
    """
    measured = ~np.isnan(values)
    n = np.asarray(measured.sum(axis=-1))
    some = np.maximum(n, 1)
    mean = np.where(measured, values, 0.0).sum(axis=-1) / some
    with np.errstate(invalid="ignore"):  # infinite values have no deviation; their curve gets no interval
        rest = np.where(measured, values - mean[..., None], 0.0)
        independent, deviation = n, np.asarray(np.sqrt((rest**2).sum(axis=-1) / np.maximum(n - 1, 1)))
        if (numbers := grouped(documents)) is not None:
            independent, deviation = _of_documents(rest, measured, numbers)
        half = np.where(n < FIRST_LOOK, np.nan, half_width(independent, deviation, confidence))
        mean = np.where(n > 0, mean, np.nan)
        return MeanInterval(mean, np.asarray(mean - half), np.asarray(mean + half), n)


def _of_documents(
    rest: Float64[np.ndarray, "*batch sequence"], measured: Bool[np.ndarray, "*batch sequence"], numbers: Documents
) -> tuple[Int[np.ndarray, "*batch"], Float64[np.ndarray, "*batch"]]:
    """How many documents each curve has, and the standard error of its mean times the root of that number."""
    sizes = sums_by(measured.astype(np.float64), numbers)
    count, n = np.asarray((sizes > 0).sum(axis=-1)), np.maximum(sizes.sum(axis=-1, keepdims=True), 1)
    weighted = sums_by(rest, numbers) ** 2 / np.maximum(1 - sizes / n, 1e-300)
    return count, np.asarray(np.sqrt(count * weighted.sum(axis=-1)) / n[..., 0])
