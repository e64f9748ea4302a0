"""How much a mean over sequences varies where several sequences are from one document.

Sequences of one document are alike, so a document counts as one value: the sum of its deviations from the mean. With
the deviations e of n sequences in G documents of n_g sequences, u_g = Σ e over document g, the mean over sequences has
the squared standard error

    Σ u_g² / (1 - n_g/n) / n²,

the cluster-robust one with the small-sample correction CR2 (Bell & McCaffrey 2002, "Bias reduction in standard errors
for linear regression with multi-stage samples"; Cameron & Miller 2015, "A practitioner's guide to cluster-robust
inference", section VI). With one sequence a document it is s²/n. Its degrees of freedom are Satterthwaite's, as if the
sequences of a document were equal, which is the careful case (Imbens & Kolesár 2016, "Robust standard errors in small
samples", section II, estimate how alike they are): G - 1 where all documents have as many sequences, fewer elsewhere.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int

from tiltmeter.analysis.t_intervals import Spread, skewness

Documents = Int[np.ndarray, " sequence"]


def grouped(documents: Documents | None) -> Documents | None:
    """The documents numbered from 0, where some have several sequences; None where every sequence counts for itself.

    That is also so where all are of one document: nothing says how another one differs, and an interval can only be
    about this one.
    """
    if documents is None:
        return None
    names, numbers = np.unique(documents, return_inverse=True)
    return numbers if 1 < len(names) < len(numbers) else None


def number_of(documents: Documents | None, sequences: int) -> int:
    """How many values count as independent among so many sequences."""
    numbers = grouped(documents)
    return sequences if numbers is None else int(numbers.max()) + 1


def spread(values: Float[np.ndarray, "*batch sequence"], documents: Documents | None) -> Spread:
    """The spread of values over sequences, at least two, or over their documents.

    Values that vary, but not at all between documents, have no deviation (NaN).
    """
    n, centred = values.shape[-1], values - values.mean(axis=-1, keepdims=True)
    numbers = grouped(documents)
    if numbers is None:
        return Spread(np.asarray(values.std(axis=-1, ddof=1)), skewness(centred), n, float(n - 1))
    sizes, sums = np.bincount(numbers), sums_by(centred, numbers)
    count = len(sizes)
    deviation = np.sqrt(count * (sums**2 / (1 - sizes / n)).sum(axis=-1)) / n
    rounding = 1e-12 * np.abs(centred).max(axis=-1)
    known = np.asarray(deviation > rounding)
    skew = skewness(np.where(known[..., None], sums, np.arange(count)))
    return Spread(np.where(known, deviation, np.nan), np.where(known, skew, np.nan), count, freedom(sizes))


def sums_by(values: Float[np.ndarray, "*batch sequence"], numbers: Documents) -> Float64[np.ndarray, "*batch document"]:
    """Sums over the sequences of each document."""
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(numbers.max() + 1))
    return np.add.reduceat(values[..., order], starts, axis=-1)


def freedom(sizes: Int[np.ndarray, " document"]) -> float:
    """Satterthwaite's degrees of freedom of the squared error, for documents of sequences that are equal to each other.

    With the parts p = n_g/n, the u_g then have the variances n_g² (1 - 2 p_g + Σ p²) and the covariances
    n_g n_h (Σ p² - p_g - p_h); of the matrix M of these, weighted by 1/(1 - p), it is tr(M)² / tr(M²).
    """
    part = sizes / sizes.sum()
    weight, both = part**2 / (1 - part), float((part**2).sum())
    own = weight * (1 - 2 * part + both)
    total, first, second = weight.sum(), (weight * part).sum(), (weight * part**2).sum()
    pairs = both**2 * total**2 + 2 * second * total + 2 * first**2 - 4 * both * first * total
    others = pairs - ((weight * (both - 2 * part)) ** 2).sum()
    return float(own.sum() ** 2 / ((own**2).sum() + others))
