"""Mean and covariance of vectors that arrive in batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor


class Moments:
    """Mean and covariance of vectors that arrive in batches, in float64 (Chan, Golub & LeVeque 1979)."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def update(self, x: Float[Tensor, "entry d_site"]) -> None:
        """Add a batch of vectors; it may be empty."""
        if not len(x):
            return
        x = x.double()
        total = self.count + len(x)
        mean = x.mean(0)
        centred, shift = x - mean, mean - self.mean
        self.scatter += centred.T @ centred + torch.outer(shift, shift) * (self.count * len(x) / total)
        self.mean += shift * (len(x) / total)
        self.count = total

    def covariance(self) -> Float64[Tensor, "d_site d_site"]:
        """The unbiased covariance."""
        return self.scatter / (self.count - 1)


MOST_IN_ONE_DIRECTION = 0.5
"""Largest share of the trace that one direction can hold without a warning."""


class Spectrum(NamedTuple):
    """How a covariance is spread over directions; zeros if the covariance is zero."""

    largest: float
    """The largest eigenvalue's share of the trace, 0 to 1."""
    effective_rank: float
    """exp of the entropy of the eigenvalues' shares (Roy & Vetterli 2007): d if all are equal, 1 if one holds all."""

    @property
    def is_concentrated(self) -> bool:
        """Whether one direction holds more than half of the trace, the variance of samples."""
        return self.largest > MOST_IN_ONE_DIRECTION

    @property
    def sentence(self) -> str:
        """For a report."""
        if not self.effective_rank:
            return "Covariance of activations: zero, because all are equal."
        warning = " Samples with this covariance vary mostly along one direction." if self.is_concentrated else ""
        return (
            f"Covariance of activations: effective rank {self.effective_rank:.1f}; the largest eigenvalue holds "
            f"{self.largest:.1%} of the trace.{warning}"
        )


def spectrum_of(covariance: Float64[Tensor, "d_site d_site"]) -> Spectrum:
    """The spectrum of a covariance. Eigenvalues that rounding made negative count as zero."""
    values = torch.linalg.eigvalsh(covariance).clamp(min=0)
    if not values.sum():
        return Spectrum(0.0, 0.0)
    shares = values / values.sum()
    return Spectrum(float(shares.max()), float(torch.exp(-torch.xlogy(shares, shares).sum())))
