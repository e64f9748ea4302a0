"""The terms of the training losses of Braun et al. 2024 (section 2; the released configurations give the coefficients).

    local     MSE(x̂, x) + λ S
    e2e       K + λ S
    e2e+ds    0.5 K + λ S + 2.5 / |H| · Σ over later sites h in H of MSE(activation at h with the SAE, without it)

with S the L1 norm of the latents over the width of x, MSE a mean over tokens *and* dimensions, and K the KL divergence
of the clean from the spliced next-token distribution, in nats per token.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tiltmeter.models.split_model import SplitModel

CHUNK_ELEMENTS = 2**26
"""Logits held at once for the KL term: more tokens than these are gone through in chunks, and computed again for the
gradient."""


def sparsity(latents: Float[Tensor, "token latent"], width: int) -> Float[Tensor, ""]:
    """S: mean over tokens of the L1 norm, divided by the width of the SAE's input."""
    return latents.abs().sum(-1).mean() / width


def mse(given: Float[Tensor, "*token d"], expected: Float[Tensor, "*token d"]) -> Float[Tensor, ""]:
    """Mean squared difference over tokens and dimensions."""
    return (given - expected).square().mean()


def kl(
    model: SplitModel, clean: Float[Tensor, "token d_model"], perturbed: Float[Tensor, "token d_model"]
) -> Float[Tensor, ""]:
    """K: mean over tokens of KL(clean ‖ perturbed), nats, from final hidden states."""
    size = max(1, CHUNK_ELEMENTS // model.vocabulary)
    if len(clean) <= size:
        return _kl_sum(model, clean, perturbed) / len(clean)
    parts = zip(clean.split(size), perturbed.split(size), strict=True)
    sums = [checkpoint(_kl_sum, model, one, other, use_reentrant=False) for one, other in parts]
    return torch.stack(sums).sum() / len(clean)


def _kl_sum(model: SplitModel, clean: Tensor, perturbed: Tensor) -> Tensor:
    """KL = log Z - log Z₀ - Σ p (z - z₀): no log-softmax is stored."""
    z0, z = (_not_half(model.logits(final)) for final in (clean, perturbed))
    log_z0 = z0.logsumexp(-1)
    p = (z0 - log_z0[:, None]).exp()
    return (z.logsumexp(-1) - log_z0 - torch.linalg.vecdot(p, z - z0)).sum()


def revive(
    pre: Float[Tensor, "token latent"],
    rows: Float[Tensor, "latent d"],
    error: Float[Tensor, "token d"],
    dead: Bool[Tensor, "latent"],
) -> Float[Tensor, ""]:
    """The auxiliary loss of top-k SAEs (Gao et al. 2024, appendix A.2): the error, rebuilt from dead latents.

    Mean squared difference of x - x̂ and what the d/2 largest pre-activations of latents that have not fired for long
    give; zero where no latent is dead. As raw as the reconstruction term, so that the two keep their proportion.
    """
    if not bool(dead.any()):
        return error.new_zeros(())
    k = min(error.shape[-1] // 2, int(dead.sum()))
    kept = pre.masked_fill(~dead, -torch.inf).topk(k, dim=-1)
    latents = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())
    return mse(latents @ rows, error.detach())


def _not_half(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
