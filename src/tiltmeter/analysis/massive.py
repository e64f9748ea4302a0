"""Massive activations: tokens whose activation at a site is many times as long as the others.

Sun et al. 2024 ("Massive Activations in Large Language Models", section 2) call a single number of a hidden state
massive if its magnitude is above 100 and about 1,000 times the median magnitude of its hidden state. Such numbers stand
at the first token of a sequence and at a few delimiters, are nearly the same in every text, and act as biases of
attention. They affect statistics through the norm of the whole vector: at layer 15 of SmolLM2-135M, one token of
17,272 has 161 times the median norm, and holds 75 % of the trace of the covariance. So a token is called massive
here if its norm is more than `ratio` times the median norm at the site.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MASSIVE_RATIO = 10.0
"""Norms above this multiple of the median are massive. Our choice; `--massive-ratio` sets another."""


class MassiveCount(NamedTuple):
    """How long the activations of some sequences are at a site, and how many of them are massive."""

    median: float
    """Median norm over the tokens that the boundary policy of the statistics counts."""
    limit: float
    """Norms above this are massive."""
    largest: float
    """The largest norm of all tokens."""
    first: int
    """Massive tokens at position 0."""
    of_first: int
    """Tokens at position 0."""
    later: int
    """Massive tokens at later positions."""
    of_later: int
    """Tokens at later positions."""

    @property
    def sentence(self) -> str:
        """For a report."""
        if not self.median:
            return f"No activation is massive: the median norm is 0, the largest {self.largest:.4g}."
        if not self.first + self.later:
            return f"No activation is massive: the largest norm is {self.largest / self.median:.1f} times the median."
        return (
            f"Massive activations (norm above {self.limit:.4g}; median {self.median:.4g}, largest {self.largest:.4g}): "
            f"{_share(self.first, self.of_first)} at position 0, {_share(self.later, self.of_later)} at later ones."
        )


def count_massive(
    norms: Float[Tensor, "sequence position"], counted: Bool[Tensor, "sequence position"], ratio: float
) -> MassiveCount:
    """Count the massive activations among these norms; the median is over the counted tokens."""
    median = float(norms[counted].median())
    limit = ratio * median if median else math.inf  # where most are zero, none is long beside them
    massive = norms > limit
    return MassiveCount(
        median=median,
        limit=limit,
        largest=float(norms.max()),
        first=int(massive[:, 0].sum()),
        of_first=len(massive),
        later=int(massive[:, 1:].sum()),
        of_later=massive[:, 1:].numel(),
    )


def norms_of(x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token"]:
    """L2 norms, in float64 on the CPU."""
    return x.detach().double().norm(dim=-1).cpu()


def ordinary(x: Float[Tensor, "*token d_site"], massive_above: float) -> Bool[Tensor, "*token"]:
    """The tokens whose activation is not massive."""
    if math.isinf(massive_above):
        return torch.ones(x.shape[:-1], dtype=torch.bool)
    return norms_of(x) <= massive_above


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} tokens" + (f" ({count / total:.2g})" if 0 < count < total else "")
