"""Where activation vectors come from: real activations, a Gaussian like them, or an isotropic Gaussian.

A source gives `count` different vectors for each token of a context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.rng import Address, normal, uniform


@dataclass(frozen=True)
class Context:
    """Some tokens of some sequences, as measured at the site."""

    x: Float[Tensor, "batch span d_site"]
    """The activation at the tokens that a direction is wanted for."""
    address: Address
    """Their sequences and positions, and where their random numbers come from."""
    whole: Callable[[], Float[Tensor, "batch position d_site"]]
    """The activation at every position of the sequences: the clean one, or a base where one is in its place. Asked for,
    as the model need not have run positions behind those that are measured."""
    counted: Bool[Tensor, "batch position"]
    """The positions that statistics count: all, or all but the boundary positions."""


@runtime_checkable
class Source(Protocol):
    """Something that activation vectors can be drawn from."""

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """`count` different vectors for each token."""
        ...


@dataclass(frozen=True)
class Isotropic:
    """N(0, I): independent standard normal coordinates, zero mean (Heimersheim & Mendel 2024, "naive random")."""

    width: int

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """Standard normal vectors."""
        return torch.stack([normal(context.address, f"sample{i}", self.width) for i in range(count)]).float()


@dataclass(frozen=True)
class Gaussian:
    """N(μ, Σ) with the mean and covariance of real activations ("random" or "cov-random" in the papers).

    Sampled through the eigendecomposition of Σ, which may be singular: in a centred stream it is.
    """

    mean: Float64[Tensor, "d_site"]
    factor: Float64[Tensor, "d_site d_site"]
    """F with F Fᵀ = Σ."""

    @classmethod
    def fit(cls, mean: Float64[Tensor, "d"], covariance: Float64[Tensor, "d d"]) -> Gaussian:
        """Prepare sampling. Eigenvalues that rounding has made negative count as zero.

        F is the symmetric root: unlike the eigenvectors, it does not depend on the signs and bases a machine picks.
        """
        values, vectors = torch.linalg.eigh(covariance)
        return cls(mean, vectors * values.clamp(min=0).sqrt() @ vectors.T)

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """Vectors with the mean and covariance of real activations."""
        noise = torch.stack([normal(context.address, f"sample{i}", len(self.mean)) for i in range(count)])
        return (self.mean + noise @ self.factor.T).float()


@dataclass(frozen=True)
class Real:
    """Activations of the model on other sequences, drawn evenly from a pool."""

    pool: Float[Tensor, "entry d_site"]
    sequences: Int64[Tensor, "entry"]
    """The sequence each activation comes from, ascending."""

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """Activations of sequences other than the token's own; two drawn together are different entries.

        An entry is picked by its rank among the eligible ones, so every eligible entry is equally likely.

        Raises:
            TiltmeterError: the pool holds fewer than `count` activations of other sequences.
        """
        address = context.address
        own = address.sequences.long().cpu()
        first = torch.searchsorted(self.sequences, own)
        length = torch.searchsorted(self.sequences, own, right=True) - first
        if (left := len(self.pool) - int(length.max())) < count:
            raise TiltmeterError(
                f"{count} activations of other sequences were to be drawn, but the pool holds only {left}; make the "
                "pool larger or take it from more sequences."
            )
        shape = (len(own), len(address.positions))
        taken: list[Tensor] = []
        for i in range(count):
            eligible = (len(self.pool) - length - i)[:, None].expand(shape)
            rank = (uniform(address, f"sample{i}", 1)[..., 0] * eligible).long()
            for other in _ascending(taken):
                rank = rank + (rank >= other)
            taken.append(rank)
        entries = [rank + length[:, None] * (rank >= first[:, None]) for rank in taken]
        return self.pool[torch.stack(entries)]


def _ascending(ranks: list[Tensor]) -> list[Tensor]:
    return list(torch.stack(ranks).sort(0).values) if ranks else []
