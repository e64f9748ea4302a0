"""The local loss of a batch and its analytic gradient.

Writing the gradient out avoids autograd's graph and every product with a latent that is zero.

With n tokens x of width d, f = relu(x W_enc + b_enc), D the decoder's unit rows and e = f D + b_dec - x:

    loss    = (Σ e² + λ Σ f) / (n d)
    g       = 2 e / (n d)                                   gradient at the reconstruction
    h       = g Dᵀ + λ / (n d) where f > 0, else 0          gradient at the pre-activations
    ∂D      = fᵀ g      ∂b_dec = Σ g      ∂W_enc = xᵀ h      ∂b_enc = Σ h
    ∂W_dec  = ∂D with its component along each row removed, divided by that row's norm

All sums run over tokens, so a batch can be processed in pieces. After a little training few latents fire; of the five
matrix products, only x W_enc then still costs as much as the full dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tiltmeter.saes.training.sparse_latents import encode
from tiltmeter.saes.training.trainable_sae import TrainableSAE

LossTerms = dict[str, Float[Tensor, ""]]


@torch.no_grad()
def add_gradient(
    dictionary: TrainableSAE, sparsity: float, pieces: Iterable[Float[Tensor, "_ d_site"]], tokens: int
) -> tuple[LossTerms, Bool[Tensor, "latent"]]:
    """Compute the local loss and write its gradient to the parameters' `grad`.

    Args:
        dictionary: a ReLU SAE. The `grad` of its parameters is overwritten.
        sparsity: λ, the coefficient of S.
        pieces: the activations of the batch, in any number of pieces.
        tokens: total number of tokens in all pieces.

    Returns:
        The unweighted terms of the loss, and which latents fired.
    """
    W_enc, b_enc, b_dec = dictionary.W_enc, dictionary.b_enc, dictionary.b_dec
    lengths = dictionary.W_dec.norm(dim=-1, keepdim=True).clamp_min_(1e-12)  # the same epsilon as torch's normalize
    rows = dictionary.W_dec / lengths
    scale = 1 / (tokens * len(b_dec))
    d_W_enc, d_b_enc, d_W_dec, d_b_dec = (_cleared(one) for one in (W_enc, b_enc, dictionary.W_dec, b_dec))
    squares, totals = b_dec.new_zeros(()), torch.zeros_like(b_enc)
    for x in pieces:
        latents = encode(x, W_enc, b_enc)
        totals += latents.totals()
        error = latents.times(rows).add_(b_dec).sub_(x)
        squares += error.square().sum()
        slope = error.mul_(2 * scale)
        latents.add_products(d_W_dec, slope)
        d_b_dec += slope.sum(0)
        slopes = latents.slopes(slope, rows, sparsity * scale)
        slopes.add_products(d_W_enc.T, x)
        d_b_enc += slopes.totals()
    radial = torch.linalg.vecdot(d_W_dec, rows)[:, None]
    d_W_dec.addcmul_(rows, radial, value=-1).div_(lengths)
    return {"reconstruction": squares * scale, "sparsity": totals.sum() * scale}, totals > 0


def _cleared(parameter: Tensor) -> Tensor:
    """Zero the parameter's `grad` in place, so that every step reuses the same memory."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad.zero_()
