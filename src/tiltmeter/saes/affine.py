"""An SAE of affinely transformed activations, and the shift of `hook_z` in TransformerLens.

Published SAEs do not all read the activation that a Hugging Face model has: TransformerLens folds the value biases out
of `hook_z`, and some trainers rescale activations. Both are y = scale · x + shift, so that one wrapper adapts them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.sae import SAE, About


@dataclass(frozen=True)
class AffineSAE:
    """An SAE that was trained on y = scale · x + shift, used on x."""

    about: About
    sae: SAE
    shift: Float[Tensor, "d_site"]
    scale: float = 1.0

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """Decoder rows in the space of x."""
        return self.sae.decoder / self.scale

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Latents of y."""
        return self.sae.encode(self._transform(x))

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """Reconstruction of x: that of y, transformed back."""
        y = self.sae.decode(latents, like=None if like is None else self._transform(like))
        return (y - self.shift.to(y)) / self.scale

    def to(self, device: torch.device, dtype: torch.dtype) -> AffineSAE:
        """A copy of the SAE with its weights on this device and of this type."""
        return replace(self, sae=self.sae.to(device, dtype), shift=self.shift.to(device, dtype))

    def _transform(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token d_site"]:
        return self.scale * x + self.shift.to(x)


def unfold_value_biases(sae: SAE, model: SplitModel, site: Site) -> SAE:
    """Make an SAE of folded z (`About.processing`) an SAE of z itself; return any other SAE, or site, unchanged.

    By default (`fold_value_biases`) TransformerLens subtracts from `hook_z` what the value biases contribute
    (`value_constant`), and adds it to the output of attention instead.
    """
    if sae.about.processing != "folded" or site.kind != "z":
        return sae
    return AffineSAE(replace(sae.about, processing="raw"), sae, -value_constant(model, site))


def value_constant(model: SplitModel, site: Site) -> Float[Tensor, "d_site"]:
    """The constant part of `z` in a layer: in GPT-2, ln_1.bias @ W_V + b_V of each head.

    Measured instead of read from the weights, so that it holds for every architecture: the block is given a residual
    stream of zeros. Its norm then returns its bias alone, the values are the same at every position, and any
    attention-weighted mean of them is that value.
    """
    clean = model.start(torch.zeros(1, 1, dtype=torch.long), Site(site.layer, "resid_pre"), [site])
    return model.resume(clean, torch.zeros_like(clean.activation)).sites[site][0, 0]
