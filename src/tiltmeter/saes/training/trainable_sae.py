"""An SAE with trainable weights, whose decoder rows are normalised in every forward pass."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.sae import Activation, LinearSAE, TopK


class TrainableSAE(nn.Module):
    """latents = activation(x W_enc + b_enc); x̂ = latents D + b_dec, where D is W_dec with its rows normalised.

    The decoder starts orthogonal, as in Braun et al. 2024; the encoder starts as its transpose (Bricken et al. 2023).
    """

    def __init__(self, width: int, latents: int, activation: Activation, seed: int) -> None:
        super().__init__()
        decoder = torch.empty(latents, width)
        nn.init.orthogonal_(decoder, generator=torch.Generator().manual_seed(seed))
        self.W_dec = nn.Parameter(decoder)
        self.W_enc = nn.Parameter(nn.functional.normalize(decoder, dim=-1).T.clone())
        self.b_enc = nn.Parameter(torch.zeros(latents))
        self.b_dec = nn.Parameter(torch.zeros(width))
        self.activation = activation

    @property
    def rows(self) -> Float[Tensor, "latent d_site"]:
        """The decoder with its rows scaled to unit norm."""
        return nn.functional.normalize(self.W_dec, dim=-1)

    def pre(self, x: Float[Tensor, "token d_site"]) -> Float[Tensor, "token latent"]:
        """Pre-activations."""
        return x @ self.W_enc + self.b_enc

    def frozen(self, name: str, facts: Facts) -> LinearSAE:
        """Copy the current weights into an SAE on the CPU."""
        weights = {key: value.detach().clone() for key, value in self.named_parameters()}
        weights["W_dec"] = self.rows.detach()
        k = self.activation.k if isinstance(self.activation, TopK) else None
        return linear_sae(name, weights, Convention(apply_b_dec_to_input=False, k=k), facts)
