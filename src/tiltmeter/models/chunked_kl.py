"""KL over a large vocabulary in one pass and without storing logits: a block of the unembedding's rows at a time.

    x = dz - c,    c = Σ p dz = m·dh,    KL = log1p(Σ p φ(x)),    φ(x) = eˣ - 1 - x

dh is the change of the final hidden state, dz = W dh the change of the logits, and m = Σ p W the mean row of the
unembedding under the clean distribution p. KL is about half the variance of dz under p: adding c to all logits
changes nothing, and φ(x) ≈ x²/2 for small x. One pass is enough because m is known in
advance, and with it c. All terms are nonnegative, so float32 suffices.
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
    """How large a block of the logits [token, vocabulary] is computed at a time."""

    columns: int
    rows: int
    """Tokens, counted over all points."""
    cached: int
    """Clean probabilities that may be kept in memory for later points."""


CPU_BLOCKS, GPU_BLOCKS = BlockSizes(2048, 1536, 2**27), BlockSizes(8192, 16384, 2**30)
"""Blocks that stay in a CPU's cache, and blocks that keep a GPU busy. Cached probabilities take 0.5 GB and 4 GB."""


def block_sizes(device: torch.device) -> BlockSizes:
    """The block sizes for this device."""
    return CPU_BLOCKS if device.type == "cpu" else GPU_BLOCKS


class Unembedding:
    """The unembedding minus its mean row, split into blocks of the vocabulary.

    The mean row only adds a constant to all logits of a token, which the softmax ignores.
    """

    def __init__(self, weight: Float[Tensor, "vocabulary d_model"]) -> None:
        self.weight, self.centre = weight, weight.mean(0)
        self.pieces = tuple((weight - self.centre).split(block_sizes(weight.device).columns))

    def rows(self, index: Int[Tensor, "token"]) -> Float[Tensor, "token d_model"]:
        """The centred rows of some tokens of the vocabulary."""
        return self.weight[index] - self.centre


@dataclass(frozen=True)
class CleanVocabulary:
    """Clean next-token distributions, with which all points are compared."""

    unembedding: Unembedding
    p: tuple[Float[Tensor, "token _"], ...]
    mean: Float[Tensor, "token d_model"]
    """m, computed with the rounding of matrix products (`operand_precision`)."""
    log_p_target: Float[Tensor, "token"]
    targets: Int[Tensor, "token"]

    def at(self, rows: slice) -> CleanVocabulary:
        """The same for some of the tokens."""
        p = tuple(piece[rows] for piece in self.p)
        return CleanVocabulary(self.unembedding, p, self.mean[rows], self.log_p_target[rows], self.targets[rows])

    def kl(self, change: Float[Tensor, "point token d_model"]) -> Float[Tensor, "point token"]:
        """KL(clean ‖ perturbed), nats; infinite or NaN where eˣ overflows float32."""
        change = round_operand(change)
        mean = torch.linalg.vecdot(change.to(self.mean.dtype), self.mean)
        total = torch.zeros_like(mean, dtype=torch.float64)
        for weight, p in zip(self.unembedding.pieces, self.p, strict=True):
            total += phi_sum(p, product(change, weight), mean[..., None])
        return torch.log1p(total)

    def target_change(self, change: Float[Tensor, "point token d_model"]) -> Float[Tensor, "point token"]:
        """The change of the next token's loss, minus KL: -x of that token, because log q = log p + x - KL."""
        return -torch.linalg.vecdot(change, self.unembedding.rows(self.targets) - self.mean).double()


def clean_vocabulary(
    unembedding: Unembedding, final: Float[Tensor, "token d_model"], targets: Int[Tensor, "token"]
) -> CleanVocabulary:
    """Compute the clean distributions of final hidden states, in the precision of the model."""
    logits = [torch.nn.functional.linear(final, weight) for weight in unembedding.pieces]
    log_total = torch.stack([log_sum_exp(piece) for piece in logits]).logsumexp(0)
    at_target = torch.linalg.vecdot(final, unembedding.rows(targets)) - log_total
    p = tuple(piece.sub_(log_total[:, None]).exp_() for piece in logits)
    mean = torch.zeros_like(final)
    for one, weight in zip(p, unembedding.pieces, strict=True):
        mean += batched(one, weight)
    return CleanVocabulary(unembedding, p, mean, at_target.double(), targets)
