"""SAEs trained on affinely transformed activations, such as TransformerLens's `hook_z`.

Published SAEs do not all read the activations of the Hugging Face model: TransformerLens folds the value biases out of
`hook_z`, and some trainers rescale activations. Both are y = scale · x + shift, so one wrapper handles them.
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
    """An SAE trained on y = scale · x + shift, adapted to read and write x."""

    about: About
    sae: SAE
    shift: Float[Tensor, "d_site"]
    scale: float = 1.0

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """Decoder rows in the space of x."""
        return self.sae.decoder / self.scale

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Encode x: the wrapped SAE's latents of y."""
        return self.sae.encode(self._transform(x))

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """Reconstruct x: decode y and transform it back."""
        y = self.sae.decode(latents, like=None if like is None else self._transform(like))
        return (y - self.shift.to(y)) / self.scale

    def to(self, device: torch.device, dtype: torch.dtype) -> AffineSAE:
        """Return a copy with its weights on this device and in this dtype."""
        return replace(self, sae=self.sae.to(device, dtype), shift=self.shift.to(device, dtype))

    def _transform(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token d_site"]:
        return self.scale * x + self.shift.to(x)


def unfold_value_biases(sae: SAE, model: SplitModel, site: Site) -> SAE:
    """Adapt an SAE trained on folded z (`About.processing`) to raw z. Any other SAE or site is returned unchanged.

    By default (`fold_value_biases`) TransformerLens removes the contribution of the value biases (`value_constant`)
    from `hook_z` and adds it to the attention output instead.
    """
    if sae.about.processing != "folded" or site.kind != "z":
        return sae
    return AffineSAE(replace(sae.about, processing="raw"), sae, -value_constant(model, site))


def value_constant(model: SplitModel, site: Site) -> Float[Tensor, "d_site"]:
    """Measure the constant part of `z` in a layer: in GPT-2, ln_1.bias @ W_V + b_V of each head.

    It is measured rather than read from the weights, so that it works for every architecture. The block runs on a
    residual stream of zeros. Its norm then returns only its bias, so the value is the same at every position and equals
    any attention-weighted mean of values.
    """
    clean = model.start(torch.zeros(1, 1, dtype=torch.long), Site(site.layer, "resid_pre"), [site])
    return model.resume(clean, torch.zeros_like(clean.activation)).sites[site][0, 0]
