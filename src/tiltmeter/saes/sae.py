"""The interface of a sparse autoencoder (encode, decode, decoder rows, metadata), and the common implementation.

All are immutable: an SAE can be shared by several sweeps and devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.normalisation import NORMALISATIONS

Processing = Literal["centred", "raw", "folded"]
"""How the model is processed before the SAE reads its activations.

`centred`: the residual stream minus its mean over d_model (TransformerLens's default, `center_writing_weights`). `raw`:
the model as Hugging Face has it. `folded`: at `hook_z`, the value biases are folded away (TransformerLens's default,
`fold_value_biases`): z minus a constant.
"""


LOCAL_KINDS = (None, "local", "topk")
"""Kinds of SAE that were trained to reconstruct activations; an SAE without a stated kind counts as one of them."""

END_TO_END_KINDS = ("e2e", "e2e+ds")
"""Kinds of SAE that were trained to preserve the model's output (Braun et al. 2024)."""


@dataclass(frozen=True)
class About:
    """Metadata of an SAE; None where its files do not say."""

    name: str
    """The name by which the user gave it."""
    architecture: str
    """`standard`, `topk`, `jumprelu`, `gated`, ..."""
    sha256: str
    """Hash of its weights and settings."""
    kind: str | None = None
    """Its training objective: `local`, `topk`, `e2e`, `e2e+ds` (Braun et al. 2024)."""
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
        """Its metadata."""
        ...

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """Decoder rows, one per latent, at their own length."""
        ...

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Latent activations, none negative."""
        ...

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """The activation that latents decode to.

        An SAE that normalises each token restores the mean and scale of `like`; others ignore it.

        Raises:
            TiltmeterError: the SAE normalises each token, and there is no `like`.
        """
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> SAE:
        """A copy of the SAE with its weights on this device and of this type."""
        ...


Activation = Callable[[Float[Tensor, "*token latent"]], Float[Tensor, "*token latent"]]


@dataclass(frozen=True)
class TopK:
    """Keep the k largest positive pre-activations of a token, and set the others to zero (Gao et al. 2024)."""

    k: int

    def __call__(self, pre: Tensor) -> Tensor:
        """Latent activations of pre-activations."""
        kept = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())


@dataclass(frozen=True)
class JumpReLU:
    """Keep pre-activations above their latent's threshold, and set the others to zero (Rajamanoharan et al. 2024)."""

    threshold: Float[Tensor, "latent"]

    def __call__(self, pre: Tensor) -> Tensor:
        """Latent activations of pre-activations."""
        return torch.where(pre > self.threshold.to(pre), pre, 0.0).relu()


@dataclass(frozen=True)
class Gated:
    """Gate each latent by one threshold, and give it a magnitude of its own (Rajamanoharan et al. 2024, gated SAEs)."""

    b_gate: Float[Tensor, "latent"]
    r_mag: Float[Tensor, "latent"]
    """Logarithm of a factor between the pre-activations of gate and magnitude."""
    b_mag: Float[Tensor, "latent"]

    def __call__(self, pre: Tensor) -> Tensor:
        """Latent activations of pre-activations without a bias."""
        open_gates = pre + self.b_gate.to(pre) > 0
        return torch.where(open_gates, (pre * self.r_mag.to(pre).exp() + self.b_mag.to(pre)).relu(), 0.0)


@dataclass(frozen=True)
class LinearSAE:
    """The usual SAE: f = activation((x - input_bias) W_enc + b_enc), x̂ = f W_dec + b_dec.

    An SAE that normalises each token does so to x first, and restores x̂'s mean and scale last.
    """

    about: About
    W_enc: Float[Tensor, "d_site latent"]
    b_enc: Float[Tensor, "latent"]
    W_dec: Float[Tensor, "latent d_site"]
    b_dec: Float[Tensor, "d_site"]
    input_bias: Float[Tensor, "d_site"]
    """Subtracted before encoding: `b_dec` in some conventions, zero in others."""
    activation: Activation = torch.relu
    normalisation: str = "none"
    """One of `NORMALISATIONS`."""

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """Decoder rows: W_dec."""
        return self.W_dec

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Latent activations."""
        x = x.to(self.W_enc)
        if (normalise := NORMALISATIONS[self.normalisation]) is not None:
            x = normalise.apply(x)
        return self.activation((x - self.input_bias) @ self.W_enc + self.b_enc)

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """The reconstruction; with the mean and scale of `like` if the SAE normalises each token.

        Raises:
            TiltmeterError: the SAE normalises each token, and there is no `like`.
        """
        y = latents @ self.W_dec + self.b_dec
        if (normalise := NORMALISATIONS[self.normalisation]) is None:
            return y
        if like is None:
            raise TiltmeterError(
                f"{self.about.name} normalises each activation, so that latents alone do not determine the length of a "
                "reconstruction; decode with like=, the activation whose mean and scale to restore."
            )
        return normalise.undo(y, like.to(y))

    def to(self, device: torch.device, dtype: torch.dtype) -> LinearSAE:
        """A copy of the SAE with its weights on this device and of this type."""
        weights: dict[str, Any] = {
            name: value.to(device, dtype) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **weights)


def reconstruct(sae: SAE, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token d_site"]:
    """SAE(x), in the type of x."""
    return sae.decode(sae.encode(x), like=x).to(x)


def check_finite(name: str, weights: Mapping[str, Tensor]) -> None:
    """Check that an SAE's weights have no NaN and no infinity.

    Raises:
        TiltmeterError: one has; it is named.
    """
    for key, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TiltmeterError(
                f"The SAE {name} has NaN or an infinity in {key}; its file is damaged: download it again."
            )
