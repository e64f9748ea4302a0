"""A sparse autoencoder as tiltmeter sees one: encode, decode, decoder rows, and what it is. Nothing in it has state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError

Processing = Literal["centred", "raw", "folded"]
"""What an SAE expects to be done to a model before it reads it.

`centred`: the residual stream minus its mean over d_model (TransformerLens's default, `center_writing_weights`). `raw`:
the model as Hugging Face has it. `folded`: at `hook_z`, the value biases folded away (TransformerLens's default,
`fold_value_biases`): z minus a constant.
"""


LOCAL_KINDS = (None, "local", "topk")
"""Kinds of SAE that were trained to reconstruct activations; an SAE without a stated kind counts as one of them."""

END_TO_END_KINDS = ("e2e", "e2e+ds")
"""Kinds of SAE that were trained to preserve the model's output (Braun et al. 2024)."""


@dataclass(frozen=True)
class About:
    """What is known of an SAE besides its weights; None where its files do not say."""

    name: str
    """What the user called it."""
    architecture: str
    """`standard`, `topk`, `jumprelu`, `gated`, ..."""
    sha256: str
    """Of its weights."""
    kind: str | None = None
    """What it was trained for: `local`, `topk`, `e2e`, `e2e+ds` (Braun et al. 2024)."""
    hook_name: str | None = None
    """TransformerLens name of the site it belongs to."""
    model: str | None = None
    processing: Processing | None = None
    l0: float | None = None
    """Published mean number of active latents per token."""
    explained_variance: float | None = None
    """Published, from 0 to 1."""
    prepend_bos: bool | None = None
    """Whether it was trained on sequences that begin with the boundary token."""


@runtime_checkable
class SAE(Protocol):
    """A sparse autoencoder. Activations are [..., d_site]; at `hook_z` the heads are flattened."""

    @property
    def about(self) -> About:
        """What it is."""
        ...

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """One row a latent, as long as the SAE has it."""
        ...

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Latents, none negative."""
        ...

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """The activation that latents stand for.

        `like` is the activation whose mean and scale an SAE with per-token normalisation gives back; others ignore it.

        Raises:
            TiltmeterError: such an SAE, and no `like`.
        """
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> SAE:
        """The same SAE, with its weights on this device and of this type."""
        ...


Activation = Callable[[Float[Tensor, "*token latent"]], Float[Tensor, "*token latent"]]


@dataclass(frozen=True)
class TopK:
    """The k largest of the positive pre-activations of a token, the others zero (Gao et al. 2024)."""

    k: int

    def __call__(self, pre: Tensor) -> Tensor:
        """Latents."""
        kept = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())


@dataclass(frozen=True)
class JumpReLU:
    """Pre-activations above their latent's threshold, the others zero (Rajamanoharan et al. 2024)."""

    threshold: Float[Tensor, "latent"]

    def __call__(self, pre: Tensor) -> Tensor:
        """Latents."""
        return torch.where(pre > self.threshold.to(pre), pre, 0.0).relu()


@dataclass(frozen=True)
class LinearSAE:
    """activation((x - input_bias) W_enc + b_enc), then latents W_dec + b_dec."""

    about: About
    W_enc: Float[Tensor, "d_site latent"]
    b_enc: Float[Tensor, "latent"]
    W_dec: Float[Tensor, "latent d_site"]
    b_dec: Float[Tensor, "d_site"]
    input_bias: Float[Tensor, "d_site"]
    """Subtracted before encoding: `b_dec` in some conventions, zero in others."""
    activation: Activation = torch.relu

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """W_dec."""
        return self.W_dec

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Latents."""
        x = x.to(self.W_enc)
        return self.activation((x - self.input_bias) @ self.W_enc + self.b_enc)

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """Reconstruction."""
        return latents @ self.W_dec + self.b_dec

    def to(self, device: torch.device, dtype: torch.dtype) -> LinearSAE:
        """The same SAE, with its weights on this device and of this type."""
        moved: dict[str, Any] = {
            name: value.to(device, dtype) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def reconstruct(sae: SAE, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token d_site"]:
    """SAE(x), in x's type."""
    return sae.decode(sae.encode(x), like=x).to(x)


def check_finite(name: str, weights: Mapping[str, Tensor]) -> None:
    """Refuse an SAE with NaN or an infinity in its weights.

    Raises:
        TiltmeterError: the first such weight is named.
    """
    for key, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TiltmeterError(f"The SAE {name} has NaN or an infinity in {key}; its file is damaged: get it again.")
