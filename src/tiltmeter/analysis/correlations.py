"""Correlations over tokens, from sums per sequence, so that a bootstrap over sequences resamples sums, not tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

Sums = Float[np.ndarray, "sequence column column"]
"""Σ v vᵀ over the tokens of each sequence, v = (1, the columns). NaN if no token has a value in all columns."""


def sums_of(columns: Sequence[Float[np.ndarray, "sequence position"]]) -> Sums:
    """Sum over the tokens where no column is NaN.

    The columns are centred first: it changes no correlation, and large means would cost digits.
    """
    values = np.stack([column.astype(np.float64) for column in columns], -1)
    known: Bool[np.ndarray, "sequence position"] = np.asarray(~np.isnan(values).any(-1))
    means = values[known].mean(0) if known.any() else np.zeros(len(columns))
    held = np.where(known[..., None], values - means, 0.0)
    rows = np.concatenate([known[..., None].astype(np.float64), held], -1)
    sums = np.einsum("spi,spj->sij", rows, rows, optimize=True)
    sums[~known.any(1)] = np.nan
    return sums


def matrix(sums: Sums) -> Float[np.ndarray, "variable variable"]:
    """Pearson correlations of the columns over the tokens of all sequences; NaN for a constant column."""
    total = sums.sum(0)
    mean = total[0, 1:] / total[0, 0]
    covariance = total[1:, 1:] / total[0, 0] - np.outer(mean, mean)
    scale = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        return covariance / np.outer(scale, scale)
