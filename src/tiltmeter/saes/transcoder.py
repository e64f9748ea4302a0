"""Transcoders of an MLP whose input is known: T(u) approximates the MLP's output, u is what it reads.

Dunefsky et al. 2024, "Transcoders Find Interpretable LLM Feature Circuits".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.models.mlp_input import MLPInput
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.sae import Activation


@dataclass(frozen=True)
class Transcoder(Dictionary):
    """T(u) = activation(u W_enc + b_enc) W_dec + b_dec + u W_skip, the last term only with a skip connection.

    Skip connections are of Paulo et al. 2025. Nothing is subtracted from u.
    """

    W_enc: Float[Tensor, "d_in latent"]
    b_enc: Float[Tensor, "latent"]
    b_dec: Float[Tensor, "d_site"]
    activation: Activation
    reads: MLPInput
    """Which of the activations before the MLP u is."""
    W_skip: Float[Tensor, "d_in d_site"] | None = None

    def encode(self, u: Float[Tensor, "*token d_in"]) -> Float[Tensor, "*token latent"]:
        """Latent activations, of what the MLP reads."""
        return self.activation(u.to(self.W_enc) @ self.W_enc + self.b_enc)

    def decode(
        self, latents: Float[Tensor, "*token latent"], u: Float[Tensor, "*token d_in"]
    ) -> Float[Tensor, "*token d_site"]:
        """T(u), given the latents of u."""
        y = latents @ self.decoder + self.b_dec
        return y if self.W_skip is None else y + u.to(y) @ self.W_skip

    def to(self, device: torch.device, dtype: torch.dtype) -> Transcoder:
        """A copy with its weights on this device and of this type."""
        weights: dict[str, Any] = {
            name: value.to(device, dtype) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **weights)
