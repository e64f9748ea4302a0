"""Means with intervals over sequences.

The tokens of one sequence are not independent (they share a text, and each perturbed token is read by the later ones),
so a sequence counts as one value, its mean over tokens. Where several sequences are from one document, documents count
(`tiltmeter.analysis.clusters`); the mean is over sequences all the same.

The interval is Student's, widened on the side of the longer tail (`tiltmeter.analysis.t_intervals`). It takes the
place of a bootstrap (BCa), which covers less than it says below some hundred sequences, and of a bootstrapped t, which
covers as often but becomes arbitrarily wide where one sequence stands out, since draws without that sequence have
almost no spread.

A curve's interval does not depend on which other curves are computed with it.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import stats

from tiltmeter.analysis.clusters import Documents, grouped, spread
from tiltmeter.analysis.t_intervals import skewed_t, student_t
from tiltmeter.errors import TiltmeterError


class MeanInterval(NamedTuple):
    """The mean of each curve, its confidence interval, and the number of sequences averaged."""

    mean: Float[np.ndarray, "*batch"]
    low: Float[np.ndarray, "*batch"]
    high: Float[np.ndarray, "*batch"]
    n: Int[np.ndarray, "*batch"]


def mean_interval(
    values: Float[np.ndarray, "*batch sequence"], confidence: float = 0.95, documents: Documents | None = None
) -> MeanInterval:
    """Average each curve over sequences, with its interval, a t interval corrected for skewness.

    A NaN is a sequence that was not measured: it is left out of its curve. A curve of one sequence has a mean and no
    interval (NaN), a curve of none has neither, one with an infinite value has an infinite mean and no interval. Where
    all values are equal the interval is that value. No sample of a few sequences shows a tail that it did not draw:
    `scripts/interval_coverage.py` measures how often the intervals contain the mean.

    Args:
        values: one number per sequence, in any unit; any number of curves.
        confidence: coverage probability of the interval, between 0 and 1.
        documents: which document each sequence is from; None where each is one of its own.

    Raises:
        TiltmeterError: `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise TiltmeterError(f"the confidence is {confidence}; give a number between 0 and 1, such as 0.95.")
    shape = values.shape[:-1]
    curves = np.ascontiguousarray(values, dtype=np.float64).reshape(math.prod(shape), values.shape[-1])
    measured = ~np.isnan(curves)
    n = measured.sum(axis=-1)
    mean, low, high = (np.full(len(curves), np.nan) for _ in range(3))
    for pattern, members in _by_pattern(measured):
        held = curves[np.ix_(members, pattern)]
        mean[members] = held.mean(axis=-1) if held.shape[-1] else np.nan
        low[members], high[members] = _intervals(held, confidence, None if documents is None else documents[pattern])
    return MeanInterval(mean.reshape(shape), low.reshape(shape), high.reshape(shape), n.reshape(shape))


def _by_pattern(
    measured: Bool[np.ndarray, "curve sequence"],
) -> list[tuple[Bool[np.ndarray, " sequence"], Int[np.ndarray, " member"]]]:
    """Curves grouped by which sequences they were measured on."""
    patterns, group = np.unique(measured, axis=0, return_inverse=True)
    return [(pattern, np.flatnonzero(group.ravel() == index)) for index, pattern in enumerate(patterns)]


def _intervals(
    values: Float[np.ndarray, "curve sequence"], confidence: float, documents: Documents | None
) -> Float[np.ndarray, "2 curve"]:
    bounds = np.full((2, len(values)), np.nan)
    n = values.shape[-1]
    if n < 2:
        return bounds
    constant = np.ptp(values, axis=-1) == 0
    bounds[:, constant] = values[constant, 0]
    varied = ~constant & np.isfinite(values).all(axis=-1)
    held = values[varied]
    bounds[:, varied] = skewed_t(held.mean(axis=-1), spread(held, documents), confidence)
    return bounds


def median_interval(
    values: Float[np.ndarray, " sequence"], confidence: float = 0.95, documents: Documents | None = None
) -> tuple[float, float]:
    """Confidence interval of a median between two order statistics, from the binomial distribution (Thompson 1936).

    It assumes only that sequences are independent, and covers the median at least as often as asked. Where several are
    from one document, the order statistics are those at which the interval of the fraction of values below the median
    ends (Woodruff 1952), with the documents' standard error; they are never nearer to the median than without.
    Censored values count as infinite: an end that falls among them is infinite. NaN values are left out; the interval
    is NaN if even the extremes do not cover the median that often (fewer than 6 values, at 0.95).
    """
    measured = ~np.isnan(values)
    known = np.sort(values[measured])
    rank = int(stats.binom.ppf((1 - confidence) / 2, len(known), 0.5)) if len(known) else 0
    if documents is not None and grouped(documents[measured]) is not None:
        below = (values[measured] < np.median(known)) + 0.5 * (values[measured] == np.median(known))
        low, _ = student_interval(below - below.mean(), confidence, documents[measured])
        rank = min(rank, math.floor(len(known) * (0.5 + low))) if low > -0.5 else 0
    if rank < 1:
        return np.nan, np.nan
    return float(known[rank - 1]), float(known[-rank])


def student_interval(
    values: Float64[np.ndarray, " sequence"], confidence: float, documents: Documents | None = None
) -> tuple[float, float]:
    """Student's t interval of the mean; NaN values are left out, and fewer than two give NaN.

    For values whose distribution is nearly symmetric, as the differences of pairs often are.
    """
    measured = ~np.isnan(values)
    known = values[measured]
    if len(known) < 2:
        return np.nan, np.nan
    found = spread(known, None if documents is None else documents[measured])
    low, high = student_t(np.asarray(known.mean()), found, confidence)
    return float(low), float(high)
