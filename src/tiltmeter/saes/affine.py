"""An SAE whose activations are others' scaled and shifted, and the shift that TransformerLens makes at `hook_z`."""

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
    """An SAE of y = scale · x + shift, as one of x."""

    about: About
    sae: SAE
    shift: Float[Tensor, "d_site"]
    scale: float = 1.0

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """One row a latent, in the space of x."""
        return self.sae.decoder / self.scale

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Latents of y."""
        return self.sae.encode(self._moved(x))

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """The x that latents stand for."""
        y = self.sae.decode(latents, like=None if like is None else self._moved(like))
        return (y - self.shift.to(y)) / self.scale

    def to(self, device: torch.device, dtype: torch.dtype) -> AffineSAE:
        """The same SAE, with its weights on this device and of this type."""
        return replace(self, sae=self.sae.to(device, dtype), shift=self.shift.to(device, dtype))

    def _moved(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token d_site"]:
        return self.scale * x + self.shift.to(x)


def unfolded(sae: SAE, model: SplitModel, site: Site) -> SAE:
    """An SAE of folded z (`About.processing`) as one of z as it is; any other SAE, or site, as it was given.

    With its default `fold_value_biases`, TransformerLens takes out of `hook_z` what the biases bring there
    (`value_constant`) and adds it to what attention writes.
    """
    if sae.about.processing != "folded" or site.kind != "z":
        return sae
    return AffineSAE(replace(sae.about, processing="raw"), sae, -value_constant(model, site))


def value_constant(model: SplitModel, site: Site) -> Float[Tensor, "d_site"]:
    """The constant part of `z` in a layer: in GPT-2, ln_1.bias @ W_V + b_V of each head.

    A stream of zeros goes into the block: its norm leaves its bias alone, every position has the same values, and a
    mean of them is that value, whatever attention's weights are.
    """
    clean = model.start(torch.zeros(1, 1, dtype=torch.long), Site(site.layer, "resid_pre"), [site])
    return model.resume(clean, torch.zeros_like(clean.activation)).sites[site][0, 0]
