"""Mean and covariance of vectors that arrive in batches."""

from __future__ import annotations

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
