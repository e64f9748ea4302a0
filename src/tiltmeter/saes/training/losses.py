"""Terms of the training losses of Braun et al. 2024 (section 2; coefficients from the released configurations).

    local     MSE(x̂, x) + λ S
    e2e       K + λ S
    e2e+ds    0.5 K + λ S + 2.5 / |H| · Σ over later sites h in H of MSE(activation at h with the SAE, without it)

S is the L1 norm of the latents divided by the width of x. MSE is a mean over tokens *and* dimensions. K is
KL(clean ‖ spliced) between next-token distributions, in nats per token.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tiltmeter.models.split_model import SplitModel

CHUNK_ELEMENTS = 2**26
"""Logits held in memory at once for the KL term. Larger batches are split into chunks, whose logits are recomputed in
the backward pass."""


def sparsity(latents: Float[Tensor, "token latent"], width: int) -> Float[Tensor, ""]:
    """Compute S: the mean L1 norm of the latents per token, divided by the width of the SAE's input."""
    return latents.abs().sum(-1).mean() / width


def mse(given: Float[Tensor, "*token d"], expected: Float[Tensor, "*token d"]) -> Float[Tensor, ""]:
    """Compute the mean squared difference over tokens and dimensions."""
    return (given - expected).square().mean()


def kl(
    model: SplitModel, clean: Float[Tensor, "token d_model"], perturbed: Float[Tensor, "token d_model"]
) -> Float[Tensor, ""]:
    """Compute K from final hidden states: the mean over tokens of KL(clean ‖ perturbed), in nats."""
    size = max(1, CHUNK_ELEMENTS // model.vocabulary)
    if len(clean) <= size:
        return _kl_sum(model, clean, perturbed) / len(clean)
    parts = zip(clean.split(size), perturbed.split(size), strict=True)
    sums = [checkpoint(_kl_sum, model, one, other, use_reentrant=False) for one, other in parts]
    return torch.stack(sums).sum() / len(clean)


def _kl_sum(model: SplitModel, clean: Tensor, perturbed: Tensor) -> Tensor:
    """KL = log Z - log Z₀ - Σ p (z - z₀), which needs no stored log-softmax."""
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
    """Compute the auxiliary loss of top-k SAEs (Gao et al. 2024, appendix A.2), which gives dead latents a gradient.

    Dead latents reconstruct the SAE's error x - x̂ from their d/2 largest pre-activations; the loss is the mean squared
    difference. It is zero if no latent is dead. It is not normalised, like the reconstruction term, so that their ratio
    does not depend on the scale of x.
    """
    if not bool(dead.any()):
        return error.new_zeros(())
    k = min(error.shape[-1] // 2, int(dead.sum()))
    kept = pre.masked_fill(~dead, -torch.inf).topk(k, dim=-1)
    latents = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())
    return mse(latents @ rows, error.detach())


def _not_half(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
