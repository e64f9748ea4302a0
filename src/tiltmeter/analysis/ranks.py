"""Where one curve stands among curves of random draws: ranks, p-values and ratios.

If the curve is exchangeable with the draws, each of its ranks is equally likely, whatever their distribution is. So
these p-values are exact for any number of draws, sequences and steps (Barnard 1963; Besag & Clifford 1989).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

Curve = Float[np.ndarray, " step"]
Draws = Float[np.ndarray, "draw step"]

RESAMPLES = 999


def extreme_rank_p(curve: Curve, draws: Draws) -> float:
    """Two-sided p-value of a curve among draws, for all steps at once.

    Each curve is given the ranks of its steps, counted from the nearer end, in ascending order; a curve is more extreme
    than another if this list comes first lexicographically ("extreme rank length": Narisetty & Nair 2016; Myllymäki et
    al. 2017, section 4). The p-value is the fraction of curves, this one included, that are at least as extreme. It
    is at least 1 / (draws + 1).
    """
    ranks = np.sort(_ranks(np.vstack([curve, draws])), axis=1)
    order = np.lexsort(ranks.T[::-1])
    place = np.empty(len(ranks), int)
    place[order] = np.arange(len(ranks))
    ties = (ranks == ranks[0]).all(axis=1)
    return float(place[ties].max() + 1) / len(ranks)


class Extremes(NamedTuple):
    """On which side of the draws a curve lies at the steps where it is most extreme."""

    above: bool
    """Whether it is nearer to the top at one of them."""
    below: bool
    """Whether it is nearer to the bottom at one of them."""
    last: int
    """The last of these steps."""


def extremes(curve: Curve, draws: Draws) -> Extremes:
    """Find the steps at which the curve's rank, counted from the nearer end, is smallest, and their sides."""
    up, down = (ranks[0] for ranks in _ranks_from_ends(np.vstack([curve, draws])))
    nearer = np.minimum(up, down)
    at = np.flatnonzero(nearer == nearer.min())
    return Extremes(bool((up <= down)[at].any()), bool((down < up)[at].any()), int(at[-1]))


def _ranks(curves: Draws) -> Int[np.ndarray, "draw step"]:
    return np.minimum(*_ranks_from_ends(curves))


def _ranks_from_ends(curves: Draws) -> tuple[Int[np.ndarray, "draw step"], Int[np.ndarray, "draw step"]]:
    """Ranks from 1, counted from the largest value and from the smallest; equal values get the larger rank."""
    if np.isnan(curves).any():
        raise ValueError("curves with NaN have no ranks")  # scipy would return NaN for all of them
    up, down = (stats.rankdata(sign * curves, method="max", axis=0) for sign in (-1, 1))
    return up.astype(int), down.astype(int)


def percentile(value: float, draws: Float[np.ndarray, " draw"]) -> float:
    """Percentage of draws below a value; equal ones count half."""
    return float(100 * ((draws < value).mean() + (draws == value).mean() / 2))


def rank_p(value: float, draws: Float[np.ndarray, " draw"]) -> float:
    """Two-sided p-value of one value among draws: twice the smaller one-sided p-value, at most 1."""
    above, below = 1 + (draws >= value).sum(), 1 + (draws <= value).sum()
    return float(min(1.0, 2 * min(above, below) / (len(draws) + 1)))


def ratio_of_means(
    values: Float[np.ndarray, " sequence"], draws: Float[np.ndarray, "draw sequence"], seed: int = 0
) -> tuple[float, float, float]:
    """The mean of values, divided by the mean of draws on the same sequences, with its 95 % interval.

    Sequences (paired) and draws are both resampled with replacement, as both are random samples (Owen 2007, "The
    pigeonhole bootstrap"). The bounds are percentiles.

    Returns:
        The ratio and its bounds; NaN if there are no values, or the draws are all zero.
    """
    kept = ~(np.isnan(values) | np.isnan(draws).any(axis=0))
    values, draws = values[kept], draws[:, kept]
    if not values.size or not draws.mean() > 0:
        return np.nan, np.nan, np.nan
    rng = np.random.default_rng(seed)
    sequences, rows = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in (values.size, len(draws)))
    denominators = ((rows @ draws) * sequences).sum(axis=1)
    with np.errstate(divide="ignore"):
        low, high = np.quantile(sequences @ values / denominators, [0.025, 0.975])
    return float(values.mean() / draws.mean()), float(low), float(high)
