"""An n-gram model of token ids: interpolated, modified Kneser-Ney. A baseline for nano.

    model = NgramModel.train(stream, order=5, vocabulary=4096)
    model.log_probabilities(pieces)

The estimate is Chen & Goodman's (1999, "An empirical study of smoothing techniques for language modeling"): a gram's
count minus a discount, divided by the count of its context. The discounted mass goes to the estimate from the context
without its first token, and finally to the uniform distribution. The longest grams use their raw counts; shorter ones
the number of distinct tokens that precede them. A token with fewer than `order - 1` preceding tokens is predicted by a
model of the order that its context allows, whose longest grams again use raw counts.

A gram of up to five 12-bit tokens fits one integer, so counting is a sort and lookup a binary search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Integer

from tiltmeter.errors import TiltmeterError

BITS = 12
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Fallback discounts if counts are too few to estimate them, as in KenLM."""


class Level(NamedTuple):
    """The grams of one order and their contexts, both as sorted codes."""

    grams: Int64[np.ndarray, " gram"]
    shares: Float64[np.ndarray, " gram"]
    """Discounted count of the gram divided by the count of its context."""
    contexts: Int64[np.ndarray, " context"]
    passed_on: Float64[np.ndarray, " context"]
    """Fraction of the context's count that discounting assigns to the shorter context."""

    def mix(
        self, codes: Int64[np.ndarray, "*any"], shorter: Float64[np.ndarray, "*any"]
    ) -> Float64[np.ndarray, "*any"]:
        """Compute the probability of the last token of each gram, given the estimates from the shorter context."""
        share = _look_up(self.grams, self.shares, codes, missing=0.0)
        return share + _look_up(self.contexts, self.passed_on, codes >> BITS, missing=1.0) * shorter


@dataclass(frozen=True)
class NgramModel:
    """An interpolated modified Kneser-Ney model, built by `train`."""

    as_they_occur: list[Level]
    """For a model of each order, the level of its longest grams, from order 1."""
    by_predecessors: list[Level]
    """Levels of the shorter grams, from order 1 up to one below the longest."""
    vocabulary: int

    @classmethod
    def train(cls, stream: Integer[np.ndarray, " token"], order: int, vocabulary: int) -> NgramModel:
        """Count the grams of a stream of token ids, up to `order` tokens long.

        Raises:
            TiltmeterError: a gram would not fit an integer, a token is outside the vocabulary, the stream is too short.
        """
        if not 1 <= order <= 5 or not 1 <= vocabulary <= 1 << BITS:
            raise TiltmeterError(f"got order {order} and vocabulary {vocabulary}; use 1 to 5 and at most {1 << BITS}")
        if len(stream) < order:
            raise TiltmeterError(f"got a stream of {len(stream)} tokens; order {order} needs at least {order}")
        if int(stream.min()) < 0 or int(stream.max()) >= vocabulary:
            raise TiltmeterError(f"got tokens from {stream.min()} to {stream.max()}; use 0 to {vocabulary - 1}")
        as_they_occur, by_predecessors = [], []
        for n in range(1, order + 1):
            grams, counts = np.unique(_pack(stream, n), return_counts=True)
            as_they_occur.append(_level(grams, counts))
            if n > 1:
                without_first = grams & ((1 << BITS * (n - 1)) - 1)
                by_predecessors.append(_level(*np.unique(without_first, return_counts=True)))
        return cls(as_they_occur, by_predecessors, vocabulary)

    def log_probabilities(
        self, pieces: Integer[np.ndarray, "piece position"]
    ) -> Float64[np.ndarray, "piece position-1"]:
        """Compute the log-probability (nats) of every token but the first, given the preceding tokens of its piece."""
        probability = np.empty(pieces.shape)
        shorter = np.full(pieces.shape, 1 / self.vocabulary)
        for n in range(1, min(len(self.as_they_occur), pieces.shape[1]) + 1):
            codes = _pack(pieces, n)
            probability[:, n - 1 :] = self.as_they_occur[n - 1].mix(codes, shorter[:, n - 1 :])
            if n <= len(self.by_predecessors):
                shorter[:, n - 1 :] = self.by_predecessors[n - 1].mix(codes, shorter[:, n - 1 :])
        return np.log(probability[:, 1:])


def _pack(tokens: Integer[np.ndarray, "*any position"], n: int) -> Int64[np.ndarray, "*any gram"]:
    """Encode each run of `n` tokens as an integer, with the first token in the highest bits."""
    width = tokens.shape[-1] - n + 1
    codes = np.zeros((*tokens.shape[:-1], width), dtype=np.int64)
    for offset in range(n):
        codes = codes << BITS | tokens[..., offset : offset + width].astype(np.int64)
    return codes


def _level(grams: Int64[np.ndarray, " gram"], counts: Int64[np.ndarray, " gram"]) -> Level:
    contexts, owner = np.unique(grams >> BITS, return_inverse=True)
    removed = _discounts(counts)[np.minimum(counts, 3) - 1]
    totals = np.bincount(owner, counts)
    return Level(grams, (counts - removed) / totals[owner], contexts, np.bincount(owner, removed) / totals)


def _discounts(counts: Int64[np.ndarray, " gram"]) -> Float64[np.ndarray, " times"]:
    """Return the discounts for grams counted once, twice, and three or more times."""
    having = np.bincount(np.minimum(counts, 5), minlength=6)[1:5]
    if having.all():
        times = np.arange(1, 4)
        scale = having[0] / (having[0] + 2 * having[1])
        estimate = times - (times + 1) * scale * having[1:] / having[:-1]
        if (estimate > 0).all():
            return estimate
    return np.array(FALLBACK_DISCOUNTS)


def _look_up(
    keys: Int64[np.ndarray, " key"],
    values: Float64[np.ndarray, " key"],
    codes: Int64[np.ndarray, "*any"],
    missing: float,
) -> Float64[np.ndarray, "*any"]:
    at = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return np.where(keys[at] == codes, values[at], missing)
