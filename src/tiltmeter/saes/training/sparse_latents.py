"""The latents of some tokens, as a dense matrix if many fire and as a sparse one if few do.

Both implement the four operations of a training step. The sparse one skips products with zero.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

SPARSE_BELOW = 1 / 32
"""Fraction of latents that fire on a token, below which sparse products are faster on a CPU."""

PROBE = 64
"""Number of tokens from which that fraction is estimated."""

CHUNK_ELEMENTS = 2**22
"""Latent values computed at once before zeros are dropped: small enough that the allocator keeps the memory between
steps instead of returning it to the system."""


class Fired(Protocol):
    """Latents as a matrix [token, latent], zero where a latent did not fire."""

    def times(self, rows: Float[Tensor, "latent d"]) -> Float[Tensor, "token d"]:
        """Multiply the matrix by `rows`."""
        ...

    def totals(self) -> Float[Tensor, "latent"]:
        """Sum the matrix over tokens."""
        ...

    def add_products(self, to: Float[Tensor, "latent d"], tokens: Float[Tensor, "token d"]) -> None:
        """Add the transpose of the matrix times `tokens` to `to`, in place."""
        ...

    def slopes(self, tokens: Float[Tensor, "token d"], rows: Float[Tensor, "latent d"], constant: float) -> Fired:
        """Return `tokens @ rows.T + constant` where a latent fired, and zero elsewhere."""
        ...


@dataclass(frozen=True)
class Dense:
    """Dense storage: every latent of every token."""

    values: Float[Tensor, "token latent"]

    def times(self, rows: Float[Tensor, "latent d"]) -> Float[Tensor, "token d"]:
        """See `Fired`."""
        return self.values @ rows

    def totals(self) -> Float[Tensor, "latent"]:
        """See `Fired`."""
        return self.values.sum(0)

    def add_products(self, to: Float[Tensor, "latent d"], tokens: Float[Tensor, "token d"]) -> None:
        """See `Fired`."""
        to.addmm_(self.values.T, tokens)

    def slopes(self, tokens: Float[Tensor, "token d"], rows: Float[Tensor, "latent d"], constant: float) -> Dense:
        """See `Fired`."""
        everywhere = torch.addmm(rows.new_tensor(constant), tokens, rows.T)
        relu_backward = torch.ops.aten.threshold_backward.grad_input
        return Dense(relu_backward(everywhere, self.values, 0.0, grad_input=everywhere))


@dataclass(frozen=True)
class Sparse:
    """Sparse storage: the latents that fired, by token (compressed rows), and their order by latent."""

    shape: tuple[int, int]
    starts: Int[Tensor, "token_and_end"]
    """Index of each token's first entry."""
    latents: Int[Tensor, "entry"]
    values: Float[Tensor, "entry"]
    order: Int[Tensor, "entry"]
    """Permutation that sorts the entries by latent."""
    starts_by_latent: Int[Tensor, "latent_and_end"]
    tokens_by_latent: Int[Tensor, "entry"]

    def times(self, rows: Float[Tensor, "latent d"]) -> Float[Tensor, "token d"]:
        """See `Fired`."""
        return self._matrix() @ rows

    def totals(self) -> Float[Tensor, "latent"]:
        """See `Fired`."""
        return self.values.new_zeros(self.shape[1]).index_add_(0, self.latents, self.values)

    def add_products(self, to: Float[Tensor, "latent d"], tokens: Float[Tensor, "token d"]) -> None:
        """See `Fired`."""
        across = _csr(self.starts_by_latent, self.tokens_by_latent, self.values[self.order], self.shape[::-1])
        to.addmm_(across, tokens)

    def slopes(self, tokens: Float[Tensor, "token d"], rows: Float[Tensor, "latent d"], constant: float) -> Sparse:
        """See `Fired`."""
        products = torch.sparse.sampled_addmm(self._matrix(), tokens, rows.T, beta=0.0)
        return replace(self, values=products.values() + constant)

    def _matrix(self) -> Tensor:
        return _csr(self.starts, self.latents, self.values, self.shape)


def encode(
    x: Float[Tensor, "token d"], weights: Float[Tensor, "d latent"], bias: Float[Tensor, "latent"]
) -> Dense | Sparse:
    """Compute relu(x weights + bias). The result is sparse on a CPU if few latents fire on the first tokens."""
    probe = _relu(x[:PROBE], weights, bias)
    if x.device.type != "cpu" or int(probe.count_nonzero()) > SPARSE_BELOW * probe.numel():
        return Dense(_relu(x, weights, bias))
    found = [_entries(_relu(chunk, weights, bias)) for chunk in x.split(max(1, CHUNK_ELEMENTS // len(bias)))]
    counts, latents, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    return _sparse(counts, latents, values, len(bias))


def _relu(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, weights).relu_()


def _entries(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of latents that fired on each token, their indices and their values."""
    tokens, which = latents.nonzero(as_tuple=True)
    return tokens.bincount(minlength=len(latents)), which, latents[tokens, which]


def _sparse(counts: Tensor, latents: Tensor, values: Tensor, width: int) -> Sparse:
    ordered, order = latents.sort(stable=True)
    tokens = torch.arange(len(counts)).repeat_interleave(counts)
    return Sparse(
        shape=(len(counts), width),
        starts=_starts(counts),
        latents=latents,
        values=values,
        order=order,
        starts_by_latent=_starts(ordered.bincount(minlength=width)),
        tokens_by_latent=tokens[order],
    )


def _starts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns once that its CSR support is in beta
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
