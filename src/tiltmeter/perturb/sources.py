"""Sources of activation vectors: real activations, a Gaussian fitted to them, or an isotropic Gaussian.

A source draws `count` different vectors for each token of a context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.rng import Address, normal, uniform


@dataclass(frozen=True)
class Context:
    """Tokens for which directions are computed, in the measured stream of the site."""

    x: Float[Tensor, "batch span d_site"]
    """Activations at these tokens."""
    address: Address
    """Their sequences and positions, which determine their random numbers."""
    whole: Callable[[], Float[Tensor, "batch position d_site"]]
    """Returns the activations at every position of the sequences, clean or replaced by a base. It is a function because
    the model may not have run the positions after the measured ones."""
    counted: Callable[[], Bool[Tensor, "batch position"]]
    """Returns the mask of positions that statistics count: all but boundary positions and massive activations, or more
    where the policies say so. It is a function for the same reason."""
    tokens: Int[Tensor, "batch position"] | None = None
    """Token ids of the sequences, for what is computed from another activation; None if no model has run on any."""

    def copied(self) -> Context:
        """The same with tensors of its own, so that changes in place stay in it."""
        whole, counted = self.whole, self.counted
        tokens = None if self.tokens is None else self.tokens.clone()
        return replace(
            self, x=self.x.clone(), whole=lambda: whole().clone(), counted=lambda: counted().clone(), tokens=tokens
        )

    def of_sequence(self, row: int) -> Context:
        """The context of one sequence of the batch."""
        one, whole, counted = slice(row, row + 1), self.whole, self.counted
        return Context(
            self.x[one],
            self.address._replace(sequences=self.address.sequences[one]),
            lambda: whole()[one],
            lambda: counted()[one],
            None if self.tokens is None else self.tokens[one],
        )


@runtime_checkable
class Source(Protocol):
    """A distribution of activation vectors to draw from."""

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """Draw `count` different vectors for each token."""
        ...


@dataclass(frozen=True)
class Isotropic:
    """N(0, I): independent standard normal coordinates, zero mean (Heimersheim & Mendel 2024, "naive random")."""

    width: int

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """Draw standard normal vectors."""
        return torch.stack([normal(context.address, f"sample{i}", self.width) for i in range(count)]).float()


@dataclass(frozen=True)
class Gaussian:
    """N(μ, Σ) with the mean and covariance of real activations ("random" or "cov-random" in the papers).

    Sampling uses the eigendecomposition of Σ rather than Cholesky, as Σ is singular in a centred stream.
    """

    mean: Float64[Tensor, "d_site"]
    factor: Float64[Tensor, "d_site d_site"]
    """F with F Fᵀ = Σ."""

    @classmethod
    def fit(cls, mean: Float64[Tensor, "d"], covariance: Float64[Tensor, "d d"]) -> Gaussian:
        """Factorise the covariance. Eigenvalues that rounding made negative count as zero.

        F is the symmetric root. Unlike the eigenvectors, it does not depend on the signs and bases a machine picks.
        """
        values, vectors = torch.linalg.eigh(covariance)
        return cls(mean, vectors * values.clamp(min=0).sqrt() @ vectors.T)

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """Draw vectors with the mean and covariance of real activations."""
        noise = torch.stack([normal(context.address, f"sample{i}", len(self.mean)) for i in range(count)])
        return (self.mean + noise @ self.factor.T).float()


@dataclass(frozen=True)
class Real:
    """Activations of the model on other sequences, drawn uniformly from a pool."""

    pool: Float[Tensor, "entry d_site"]
    sequences: Int64[Tensor, "entry"]
    """Index of the sequence each activation comes from, ascending."""

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch position d_site"]:
        """Draw activations of other sequences than the token's own, without replacement within a draw.

        An entry is chosen by its rank among the eligible ones, so all of them are equally likely.

        Raises:
            TiltmeterError: the pool holds fewer than `count` activations of other sequences.
        """
        address = context.address
        own = address.sequences.long().cpu()
        first = torch.searchsorted(self.sequences, own)
        length = torch.searchsorted(self.sequences, own, right=True) - first
        if (left := len(self.pool) - int(length.max())) < count:
            raise TiltmeterError(
                f"{count} activations of other sequences were requested, but the pool holds only {left}; make the "
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
