"""Means with intervals: a bootstrap over sequences.

The tokens of one sequence are not independent (they share a text, and each perturbed token is read by the later ones),
so whole sequences are resampled, each with its mean over tokens:

1. draw as many sequences as there are, with replacement;
2. compute the mean of every curve on that draw;
3. repeat, and take the bias-corrected and accelerated (BCa) interval of Efron (1987) of the means.

Curves measured on the same sequences use the same draws, so sampling noise is shared between curves that are compared.
A curve's interval does not depend on which other curves are computed with it (up to rounding).
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import stats

from tiltmeter.errors import TiltmeterError

# 16 MB of float64: the largest table of draws, or of means, held at a time.
_NUMBERS_AT_ONCE = 2**21


class MeanInterval(NamedTuple):
    """The mean of each curve, its confidence interval, and the number of sequences averaged."""

    mean: Float[np.ndarray, "*batch"]
    low: Float[np.ndarray, "*batch"]
    high: Float[np.ndarray, "*batch"]
    n: Int[np.ndarray, "*batch"]


def bootstrap_mean(
    values: Float[np.ndarray, "*batch sequence"], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> MeanInterval:
    """Average each curve over sequences, with its bootstrap interval.

    A NaN is a sequence that was not measured: it is left out of its curve. A curve of one sequence has a mean and no
    interval (NaN), a curve of none has neither, one with an infinite value has an infinite mean and no interval. Where
    all values are equal the interval is that value; where BCa is otherwise undefined it is the percentile interval.

    Args:
        values: one number per sequence, in any unit; any number of curves.
        confidence: coverage probability of the interval, between 0 and 1.
        resamples: number of draws.
        seed: of the draws; equal input and seed give equal numbers.

    Raises:
        TiltmeterError: `confidence` is not between 0 and 1, or `resamples` is below 1.
    """
    if not 0 < confidence < 1:
        raise TiltmeterError(f"the confidence is {confidence}; give a number between 0 and 1, such as 0.95.")
    if resamples < 1:
        raise TiltmeterError(f"the number of bootstrap resamples is {resamples}; give at least 1, better 2000.")
    shape = values.shape[:-1]
    curves = np.ascontiguousarray(values, dtype=np.float64).reshape(math.prod(shape), values.shape[-1])
    measured = ~np.isnan(curves)
    n = measured.sum(axis=-1)
    mean, low, high = (np.full(len(curves), np.nan) for _ in range(3))
    for pattern, members in _by_pattern(measured):
        held = curves[np.ix_(members, pattern)]
        mean[members] = held.mean(axis=-1) if held.shape[-1] else np.nan
        low[members], high[members] = _intervals(held, confidence, resamples, seed)
    return MeanInterval(mean.reshape(shape), low.reshape(shape), high.reshape(shape), n.reshape(shape))


def _by_pattern(
    measured: Bool[np.ndarray, "curve sequence"],
) -> list[tuple[Bool[np.ndarray, " sequence"], Int[np.ndarray, " member"]]]:
    """Curves grouped by which sequences they were measured on."""
    patterns, group = np.unique(measured, axis=0, return_inverse=True)
    return [(pattern, np.flatnonzero(group.ravel() == index)) for index, pattern in enumerate(patterns)]


def _intervals(
    values: Float[np.ndarray, "curve sequence"], confidence: float, resamples: int, seed: int
) -> Float[np.ndarray, "2 curve"]:
    bounds = np.full((2, len(values)), np.nan)
    n = values.shape[-1]
    if n < 2:
        return bounds
    constant = np.ptp(values, axis=-1) == 0
    bounds[:, constant] = values[constant, 0]
    varied = np.flatnonzero(~constant & np.isfinite(values).all(axis=-1))
    block = max(1, _NUMBERS_AT_ONCE // max(n, resamples))
    for start in range(0, len(varied), block):
        members = varied[start : start + block]
        bounds[:, members] = _scipy_intervals(values[members], confidence, resamples, seed)
    return bounds


def _scipy_intervals(
    values: Float[np.ndarray, "curve sequence"], confidence: float, resamples: int, seed: int
) -> Float[np.ndarray, "2 curve"]:
    n = values.shape[-1]

    def means(drawn: Int[np.ndarray, "*draw member"], axis: int) -> Float[np.ndarray, "..."]:
        # Counting how often each sequence was drawn turns all means of all draws into one matrix product, some ten
        # times faster than gathering the values of every draw.
        rows = drawn.reshape(-1, drawn.shape[axis])
        counts = np.bincount((rows + n * np.arange(len(rows))[:, None]).ravel(), minlength=n * len(rows))
        totals = values @ counts.reshape(len(rows), n).T.astype(np.float64)
        return (totals / rows.shape[-1]).reshape(len(values), *drawn.shape[:-1])

    def interval(method: str, **settings: object) -> tuple[object, Float[np.ndarray, "2 curve"]]:
        result = stats.bootstrap(
            (np.arange(n),), means, vectorized=True, confidence_level=confidence, method=method, **settings
        )
        return result, np.stack(result.confidence_interval)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        batch = max(1, _NUMBERS_AT_ONCE // n)
        drawn, bounds = interval("BCa", n_resamples=resamples, batch=batch, rng=np.random.default_rng(seed))
        undefined = np.isnan(bounds).any(axis=0)
        if undefined.any():
            _, percentile = interval("percentile", n_resamples=0, bootstrap_result=drawn)
            bounds[:, undefined] = percentile[:, undefined]
    return bounds


def median_interval(values: Float[np.ndarray, " sequence"], confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a median between two order statistics, from the binomial distribution (Thompson 1936).

    It assumes only that sequences are independent, and covers the median at least as often as asked. Censored values
    count as infinite: an end that falls among them is infinite. NaN values are left out; the interval is NaN if even
    the extremes do not cover the median that often (fewer than 6 values, at 0.95).
    """
    known = np.sort(values[~np.isnan(values)])
    rank = int(stats.binom.ppf((1 - confidence) / 2, len(known), 0.5)) if len(known) else 0
    if rank < 1:
        return np.nan, np.nan
    return float(known[rank - 1]), float(known[-rank])


def paired_interval(differences: Float64[np.ndarray, " sequence"], confidence: float) -> tuple[float, float]:
    """Student's t interval of the mean of paired differences; NaN values are left out, and fewer than two give NaN.

    For extreme levels, such as Bonferroni-corrected ones, where the bootstrap of a few dozen sequences is too narrow.
    """
    known = differences[~np.isnan(differences)]
    if len(known) < 2:
        return np.nan, np.nan
    half_width = stats.t.ppf((1 + confidence) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean() - half_width), float(known.mean() + half_width)
