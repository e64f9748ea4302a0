"""Orders of several things: "the lower its L0, the stronger an SAE's effect". All of them count, not the extremes.

For every sequence: the fraction of pairs in the claimed order, 1 if all are, ½ if the order is by chance; equal
ones count half. That is Kendall's rank correlation, (1 + τ) / 2. Its mean over sequences is claimed to lie above ½ by
the margin of odds that all claims have (`margins.MORE_OFTEN`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tiltmeter.analysis.estimates import Estimand, Region, Scale
from tiltmeter.analysis.resampling import OfMeans
from tiltmeter.studies.estimands import PerSequence
from tiltmeter.studies.margins import MORE_OFTEN

_MEAN = OfMeans(lambda means: means[..., 0])


def in_order(label: str, columns: Sequence[PerSequence], region: Region = MORE_OFTEN) -> Estimand:
    """The fraction of pairs of columns of which the earlier is the larger, mean over sequences.

    Of two columns it is a fraction of sequences, with Wilson's interval; of more, each sequence has several pairs, and
    the interval is that of the scale `order`.
    """
    scale: Scale = "fraction" if len(columns) == 2 else "order"
    return Estimand(label, _pairs_in_order(columns)[:, None], _MEAN, region, scale=scale)


def _pairs_in_order(columns: Sequence[PerSequence]) -> PerSequence:
    pairs = [np.sign(one - other) for one, other in combinations(columns, 2)]
    return np.asarray((1 + np.mean(pairs, axis=0)) / 2)
