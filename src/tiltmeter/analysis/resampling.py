"""A number of many samples: of the rows drawn again with replacement (bootstrap), and without each row (jackknife)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "sequence ..."]
Statistic = Callable[[Rows], float]
Members = list[np.ndarray] | None
"""The rows of each document; None where each row counts for itself."""
Means = Float[np.ndarray, "*sample column"]


@dataclass(frozen=True)
class OfMeans:
    """A statistic of the means of the columns alone: those of thousands of samples are one product of matrices."""

    function: Callable[[Means], Float[np.ndarray, "*sample"]]
    """From the means of the columns, of one sample or of several."""

    def __call__(self, rows: Float[np.ndarray, "sequence column"]) -> float:
        """The number of the rows; a NaN is left out of its column's mean."""
        means = np.nanmean(rows, axis=0) if np.isnan(rows.sum()) else rows.mean(axis=0)
        return float(self.function(means))


def values(statistic: Statistic, samples: Iterable[Rows]) -> Float[np.ndarray, " sample"]:
    """The number of each sample; NaN where it is none, as a ratio to zero or a quantile of nothing."""
    found = []
    for rows in samples:
        try:
            found.append(float(statistic(rows)))
        except ZeroDivisionError:
            found.append(math.nan)
    return _finite(np.array(found))


def bootstrap(
    statistic: Statistic, rows: Rows, members: Members, resamples: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """The number in each draw of as many rows, or whole documents, as there are."""
    n = len(rows) if members is None else len(members)
    draws = np.random.default_rng(seed).integers(0, n, (resamples, n))
    if _by_means(statistic, rows):
        offsets = n * np.arange(resamples)[:, None]
        counts = np.bincount((draws + offsets).ravel(), minlength=n * resamples).reshape(resamples, n)
        sums, sizes = _sums(rows, members)
        return _finite(statistic.function(counts @ sums / (counts @ sizes)[:, None]))
    if members is None:
        return values(statistic, (rows[draw] for draw in draws))
    return values(statistic, (rows[np.concatenate([members[one] for one in draw])] for draw in draws))


def jackknife(statistic: Statistic, rows: Rows, members: Members) -> Float[np.ndarray, " left_out"]:
    """The number without each row, or without each document."""
    if _by_means(statistic, rows):
        sums, sizes = _sums(rows, members)
        return _finite(statistic.function((rows.sum(axis=0) - sums) / (len(rows) - sizes)[:, None]))
    left_out = range(len(rows)) if members is None else members
    return values(statistic, (np.delete(rows, one, axis=0) for one in left_out))


def _sums(rows: Rows, members: Members) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the rows of each document, and how many these are."""
    if members is None:
        return rows, np.ones(len(rows))
    return np.stack([rows[one].sum(axis=0) for one in members]), np.array([len(one) for one in members], float)


def _by_means(statistic: Statistic, rows: Rows) -> TypeGuard[OfMeans]:
    """Whether the means of all samples can be taken at once: not if a NaN is to be left out."""
    return isinstance(statistic, OfMeans) and not np.isnan(rows.sum())


def _finite(found: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " sample"]:
    return np.where(np.isfinite(found), found, math.nan)
