"""The local loss of a batch and its gradient, written out: without a graph, and without products with zeros.

With n tokens x of width d, f = relu(x W_enc + b_enc), D the decoder's unit rows and e = f D + b_dec - x:

    loss    = (Σ e² + λ Σ f) / (n d)
    g       = 2 e / (n d)                                   slope at the reconstruction
    h       = g Dᵀ + λ / (n d) where f > 0, else 0          slope at the pre-activations
    ∂D      = fᵀ g      ∂b_dec = Σ g      ∂W_enc = xᵀ h      ∂b_enc = Σ h
    ∂W_dec  = ∂D without its part along each row, over the length that the row had

Sums run over tokens, so a batch may come in pieces. An SAE that has learned a little fires few of its latents, and of
the five products x W_enc alone is then as large as the dictionary.
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
    """Put the gradient of `objectives`' local loss where an optimizer looks for it.

    Args:
        dictionary: a ReLU SAE. Its parameters' `grad` is overwritten.
        sparsity: λ.
        pieces: the batch's activations, in any number of pieces.
        tokens: how many tokens the pieces have in all.

    Returns:
        The terms of the loss, without coefficients, and the latents that fired.
    """
    W_enc, b_enc, b_dec = dictionary.W_enc, dictionary.b_enc, dictionary.b_dec
    lengths = dictionary.W_dec.norm(dim=-1, keepdim=True).clamp_min_(1e-12)  # as in torch's normalize
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
    """The parameter's `grad`, all zero: the same memory at every step."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad.zero_()
