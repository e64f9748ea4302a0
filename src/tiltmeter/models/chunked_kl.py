"""KL over a large vocabulary in one pass, without logits in memory: some columns of the unembedding at a time.

    x = dz - c,    c = Σ p dz = m·dh,    KL = log1p(Σ p φ(x)),    φ(x) = eˣ - 1 - x

dh is the change of the final hidden state, dz = W dh that of the logits, m = Σ p W the mean row of the unembedding
under the clean distribution. m is known before the first column is, so each column is looked at once. No term is
negative, so that float32 suffices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltmeter.models.differences.kernels import log_sum_exp, phi_sum
from tiltmeter.models.differences.products import batched, product, round_operand


class BlockSizes(NamedTuple):
    """How much of the matrix of logits is there at once."""

    columns: int
    rows: int
    """Tokens of all points."""
    cached: int
    """Probabilities of clean tokens that are kept for further points."""


CPU_BLOCKS, GPU_BLOCKS = BlockSizes(2048, 1536, 2**27), BlockSizes(8192, 16384, 2**30)
"""What stays in a processor's cache; what keeps a GPU busy. Kept are half a gigabyte, and four."""


def block_sizes(device: torch.device) -> BlockSizes:
    """How much suits this device."""
    return CPU_BLOCKS if device.type == "cpu" else GPU_BLOCKS


class Unembedding:
    """The matrix that logits are made with, in pieces, each less the mean row: a constant in all logits is nothing."""

    def __init__(self, weight: Float[Tensor, "vocabulary d_model"]) -> None:
        self.weight, self.centre = weight, weight.mean(0)
        self.pieces = tuple((weight - self.centre).split(block_sizes(weight.device).columns))

    def rows(self, index: Int[Tensor, "token"]) -> Float[Tensor, "token d_model"]:
        """Those of some tokens of the vocabulary."""
        return self.weight[index] - self.centre


@dataclass(frozen=True)
class CleanVocabulary:
    """Clean next-token distributions, and what is needed of them: all points are compared with these."""

    unembedding: Unembedding
    p: tuple[Float[Tensor, "token _"], ...]
    mean: Float[Tensor, "token d_model"]
    """m, of the unembedding as products round it."""
    log_p_target: Float[Tensor, "token"]
    targets: Int[Tensor, "token"]

    def at(self, rows: slice) -> CleanVocabulary:
        """Some of the tokens."""
        p = tuple(piece[rows] for piece in self.p)
        return CleanVocabulary(self.unembedding, p, self.mean[rows], self.log_p_target[rows], self.targets[rows])

    def kl(self, change: Float[Tensor, "point token d_model"]) -> Float[Tensor, "point token"]:
        """KL(clean ‖ perturbed), nats; infinite or NaN where e^x leaves float32."""
        change = round_operand(change)
        mean = torch.linalg.vecdot(change.to(self.mean.dtype), self.mean)
        total = torch.zeros_like(mean, dtype=torch.float64)
        for weight, p in zip(self.unembedding.pieces, self.p, strict=True):
            total += phi_sum(p, product(change, weight), mean[..., None])
        return torch.log1p(total)

    def target_change(self, change: Float[Tensor, "point token d_model"]) -> Float[Tensor, "point token"]:
        """How far log p of the token that follows falls, less KL: minus its x."""
        return -torch.linalg.vecdot(change, self.unembedding.rows(self.targets) - self.mean).double()


def clean_vocabulary(
    unembedding: Unembedding, final: Float[Tensor, "token d_model"], targets: Int[Tensor, "token"]
) -> CleanVocabulary:
    """The clean distributions of these final hidden states, in the precision of the model."""
    logits = [torch.nn.functional.linear(final, weight) for weight in unembedding.pieces]
    log_total = torch.stack([log_sum_exp(piece) for piece in logits]).logsumexp(0)
    at_target = torch.linalg.vecdot(final, unembedding.rows(targets)) - log_total
    p = tuple(piece.sub_(log_total[:, None]).exp_() for piece in logits)
    mean = torch.zeros_like(final)
    for one, weight in zip(p, unembedding.pieces, strict=True):
        mean += batched(one, weight)
    return CleanVocabulary(unembedding, p, mean, at_target.double(), targets)
