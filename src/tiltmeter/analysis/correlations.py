"""Correlations over tokens, from sums per sequence: a bootstrap over sequences then draws sums, not tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

Sums = Float[np.ndarray, "sequence column column"]
"""Of each sequence, Σ v vᵀ over its tokens, v = (1, the columns). NaN where no token has all of them."""


def sums_of(columns: Sequence[Float[np.ndarray, "sequence position"]]) -> Sums:
    """Take the sums, over the tokens where no column is NaN.

    The columns' means over all tokens are taken out first, so that large ones cost no digits; they change no
    correlation.
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
    """Pearson's correlations of the columns over the tokens of all sequences; NaN for a column that does not vary."""
    total = sums.sum(0)
    mean = total[0, 1:] / total[0, 0]
    covariance = total[1:, 1:] / total[0, 0] - np.outer(mean, mean)
    scale = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        return covariance / np.outer(scale, scale)
