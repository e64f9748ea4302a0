"""What the peers share: the loop over batches and points, and the usual computation of KL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.workloads import Workload

SEQUENCES = {"cpu": 8, "cuda": 64}
"""Largest number of sequences in a batch."""

ROW_TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens that a forward pass computes. On CPUs no other batch was faster than four sequences of 128 tokens."""


RowChange = Float[Tensor, "row position d_model"]
"""What is added to the activations."""


@dataclass(frozen=True)
class Output:
    """What is read of a forward pass."""

    late: Float[Tensor, "row read d_model"]
    """The residual stream after the last block."""
    logits: Float[Tensor, "row read vocabulary"]


@dataclass(frozen=True)
class Clean:
    """The unperturbed run of a batch."""

    tokens: Int[Tensor, "batch position"]
    output: Output
    kept: Any = None
    """What an expert version needs again: activations, keys, values."""

    @cached_property
    def log_p(self) -> Float[Tensor, "row read vocabulary"]:
        """Log-probabilities of the next token."""
        return self.output.logits.log_softmax(-1)

    @cached_property
    def p(self) -> Float[Tensor, "row read vocabulary"]:
        """Probabilities of the next token."""
        return self.log_p.exp()


@runtime_checkable
class Peer(Protocol):
    """A tool, used in one way."""

    def computed(self, work: Workload) -> int:
        """Number of tokens per sequence that a perturbed run computes."""

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """Run the model without perturbation."""

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """Run the model with `change` added to the input of a layer; rows are points times the batch."""


Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function of p, log p and log q that returns KL(p ‖ q)."""


def usual_kl(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ p (log p - log q), as it is commonly computed. Its terms cancel when p and q are close."""
    return (p * (log_p - log_q)).sum(-1)


def exact_kl(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ p (q/p - 1 - log(q/p)): the same number, because Σ q = Σ p = 1, and no term is negative.

    Nothing cancels; the usual sum loses digits below 1e-8 even in float64.
    """
    u = log_q - log_p
    return (p * (torch.expm1(u) - u)).sum(-1)


@torch.no_grad()
def measure(
    peer: Peer, work: Workload, dtype: torch.dtype = torch.float32, kl: Divergence = usual_kl
) -> dict[str, Float[Tensor, "layer point sequence read"]]:
    """All readouts of a workload, on the CPU."""
    parts = []
    for batch in work.batches(SEQUENCES[work.tokens.device.type]):
        clean = peer.clean(work.tokens[batch], work)
        parts.append([_layer(peer, work, clean, layer, batch, dtype, kl) for layer in work.layers])
    return {
        name: torch.cat([torch.stack([layer[name] for layer in part]) for part in parts], 2).cpu()
        for name in work.readouts
    }


def _layer(
    peer: Peer, work: Workload, clean: Clean, layer: int, batch: slice, dtype: torch.dtype, kl: Divergence
) -> dict[str, Tensor]:
    targets = following(clean.tokens, work.read)
    rows = max(1, ROW_TOKENS[clean.tokens.device.type] // (len(clean.tokens) * peer.computed(work)))
    found: dict[str, list[Tensor]] = {name: [] for name in work.readouts}
    for begin in range(0, len(work.lengths), rows):
        lengths = work.lengths[begin : begin + rows]
        change = work.change(layer, lengths, batch).to(dtype).flatten(0, 1)
        output = peer.perturbed(clean, work, layer, change)
        log_q = output.logits.unflatten(0, (len(lengths), -1)).log_softmax(-1)
        found["kl"].append(kl(clean.p, clean.log_p, log_q))
        if "l2" in found:
            found["l2"].append((output.late.unflatten(0, (len(lengths), -1)) - clean.output.late).norm(dim=-1))
        if "loss" in found:
            found["loss"].append(-log_q.gather(-1, targets.expand(len(lengths), -1, -1)[..., None])[..., 0])
    return {name: torch.cat(values) for name, values in found.items()}


def following(tokens: Int[Tensor, "batch position"], read: Sequence[int]) -> Int[Tensor, "batch read"]:
    """The token after each position; the last position gets the first token, and its loss is not compared."""
    return tokens.roll(-1, dims=1)[:, list(read)]
