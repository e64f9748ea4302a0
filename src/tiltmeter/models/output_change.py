"""A perturbed next-token distribution beside the clean one, and what readouts compute from the two, in float64.

KL is computed from the change dz of the logits, with p the clean distribution:

    x = dz - Σ p dz,    KL = log1p(Σ p (eˣ - 1 - x)).

Every term is nonnegative, so nothing cancels and small values keep their digits; log p - log q summed directly would
lose them, because the first-order terms of KL cancel. For the same reason a linear head is applied to the change of the
final hidden states: all logits of a token can share an offset much larger than their differences.

Numbers of the perturbed run itself are those of the logits z + dz, added in float64: what a readout changes between two
lengths keeps the digits of dz, which a second set of float32 logits would lose.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


class CleanOutput:
    """The clean next-token distribution of some tokens, in float64, shared by all path points.

    What a readout does not need is not computed, here and in `OutputChange`.
    """

    def __init__(self, logits: Float[Tensor, "token vocabulary"]) -> None:
        self.logits = logits

    @cached_property
    def log_p(self) -> Float64[Tensor, "token vocabulary"]:
        """Log probabilities, nats."""
        return self.logits.double().log_softmax(-1)

    @cached_property
    def p(self) -> Float64[Tensor, "token vocabulary"]:
        """Probabilities."""
        return self.log_p.exp()

    @cached_property
    def top(self) -> Int[Tensor, "token 1"]:
        """The most likely token; the first of equally likely ones."""
        return self.logits.argmax(-1, keepdim=True)


class OutputChange:
    """A clean and a perturbed next-token distribution, compared in float64."""

    def __init__(
        self, clean: CleanOutput, difference: Float[Tensor, "token vocabulary"], targets: Int[Tensor, "token"]
    ) -> None:
        self.clean, self.difference, self.targets = clean, difference, targets

    @cached_property
    def x(self) -> Float64[Tensor, "token vocabulary"]:
        """The change of the logits minus its clean expectation."""
        difference = self.difference.to(torch.float64, copy=True)
        return difference.sub_(torch.linalg.vecdot(self.clean.p, difference)[:, None])

    @cached_property
    def kl(self) -> Float64[Tensor, "token"]:
        """KL(clean ‖ perturbed), nats."""
        terms = torch.expm1(self.x).sub_(self.x).mul_(self.clean.p)
        kl = torch.log1p(terms.sum(-1))
        if bool((overflown := ~torch.isfinite(kl)).any()):
            kl[overflown] = (self.clean.log_p + self.x)[overflown].logsumexp(-1)
        return kl

    @cached_property
    def log_q(self) -> Float64[Tensor, "token vocabulary"]:
        """Log probabilities of the perturbed distribution, nats."""
        return self.logits.log_softmax(-1)

    @property
    def logits(self) -> Float64[Tensor, "token vocabulary"]:
        """The perturbed logits."""
        return self.clean.logits.double() + self.difference

    def js(self) -> Float64[Tensor, "token"]:
        """Jensen-Shannon divergence, nats, from 0 to log 2: the mean KL of p and q to their mixture m = (p + q) / 2.

        With u = log q - log p, a term of KL(p ‖ m) + KL(q ‖ m) is
        p[(eᵘ - 1)u/2 - (1 + eᵘ) log cosh(u/2)] = (p + q)(log 2 - log(1 + exp(-|u|))) - min(p, q)|u|,
        the first of which is accurate for small u, the second for large u.
        """
        log_p, p, u = self.clean.log_p, self.clean.p, self.x - self.kl[:, None]
        q, size = (log_p + u).exp(), u.abs()
        small = p * (torch.expm1(u) * u / 2 - (1 + u.exp()) * torch.log1p(2 * (u / 4).sinh() ** 2))
        large = (p + q) * (math.log(2) - size.neg().exp().log1p()) - torch.minimum(p, q) * size
        return torch.where(size < 1, small, large).sum(-1) / 2

    def loss(self) -> Float64[Tensor, "token"]:
        """Cross-entropy of the next token under the perturbed distribution, nats."""
        index = self.targets[:, None]
        return self.kl - (self.clean.log_p + self.x).gather(1, index)[:, 0]

    def entropy(self) -> Float64[Tensor, "token"]:
        """Entropy of the perturbed distribution, nats: -Σ q log q."""
        return -(self.log_q.exp() * self.log_q).sum(-1)

    def probability(self, token: int) -> Float64[Tensor, "token"]:
        """Probability of a token of the vocabulary under the perturbed distribution."""
        return self.log_q[:, token].exp()

    def logit_difference(self, one: int, other: int) -> Float64[Tensor, "token"]:
        """Perturbed logit of one token of the vocabulary minus that of another: their log odds, log(q / q'), nats."""
        logits, change = (each[:, [one, other]].double() for each in (self.clean.logits, self.difference))
        return (logits[:, 0] - logits[:, 1]) + (change[:, 0] - change[:, 1])

    @cached_property
    def rank(self) -> Float64[Tensor, "token"]:
        """Rank, from 1, of the clean run's most likely token in the perturbed distribution.

        One more than the number of tokens that are more likely: a token that is as likely does not count.
        """
        logits = self.logits
        return 1.0 + (logits > logits.gather(1, self.clean.top)).sum(-1).double()

    def top1(self) -> Float64[Tensor, "token"]:
        """1 where no token is more likely than the clean run's most likely one, else 0."""
        return (self.rank == 1).double()
