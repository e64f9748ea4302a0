"""SAEs that are objects of the `sae_lens` library.

SAELens's `encode` stores the norms and shapes that its `decode` then uses, so that calls must come in pairs. Here the
adapter normalises and reshapes from its arguments alone: the library's mathematics, without state.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import only_saes
from tiltmeter.saes.formats.linear import Facts, check_same_space, fingerprint
from tiltmeter.saes.formats.saelens_config import check_kind, read_facts
from tiltmeter.saes.formats.saelens_folder import rows_alone
from tiltmeter.saes.normalisation import NORMALISATIONS, Normalisation
from tiltmeter.saes.sae import About, check_finite

Tokens = Float[Tensor, "*token d_site"]


@dataclass(frozen=True)
class SAELensSAE:
    """An SAE of the library, used without its state."""

    about: About
    module: Any
    """A `sae_lens.SAE` that neither normalises nor reshapes."""
    normalisation: Normalisation | None

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """Decoder rows: W_dec."""
        return self.module.W_dec

    def encode(self, x: Tokens) -> Float[Tensor, "*token latent"]:
        """Latent activations."""
        x = x.to(self.module.W_enc)
        return self.module.encode(x if self.normalisation is None else self.normalisation.apply(x))

    def decode(self, latents: Float[Tensor, "*token latent"], like: Tokens | None = None) -> Tokens:
        """The reconstruction; with the mean and scale of `like` if the SAE normalises each token.

        Raises:
            TiltmeterError: the SAE normalises each token, and there is no `like`.
        """
        y = self.module.decode(latents.to(self.module.W_dec))
        if self.normalisation is None:
            return y
        if like is None:
            raise TiltmeterError(
                f"{self.about.name} normalises each activation, so that latents alone do not determine the length of a "
                "reconstruction; decode with like=, the activation whose mean and scale to restore."
            )
        return self.normalisation.undo(y, like.to(y))

    def to(self, device: torch.device, dtype: torch.dtype) -> SAELensSAE:
        """A copy of the SAE with its weights on this device and of this type."""
        return replace(self, module=deepcopy(self.module).to(device=device, dtype=dtype))


def adapt(sae: Any, name: str, facts: Facts | None = None) -> SAELensSAE:
    """Adapt an SAE of `sae_lens` in memory. The object is modified in place; do not use it afterwards.

    Raises:
        TiltmeterError: tiltmeter does not support it.
    """
    config = sae.cfg.to_dict()
    check_kind(name, config)
    if (rows := rows_alone(name, config, sae.state_dict())) is not None:
        only_saes(rows)
    check_same_space(name, sae.W_enc.shape[0], sae.W_dec.shape[1])
    kind = config["normalize_activations"]
    if kind not in NORMALISATIONS:
        raise TiltmeterError(
            f"{name} was trained on activations scaled by {kind}, and its files do not state the factor; fold it into "
            "the weights with SAELens and save them again."
        )
    sae = sae.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    sae.turn_off_forward_pass_hook_z_reshaping()
    sae.run_time_activation_norm_fn_in = sae.run_time_activation_norm_fn_out = _unchanged
    if config.get("rescale_acts_by_decoder_norm"):  # so that a latent of 1 adds exactly its decoder row
        sae.fold_W_dec_norm()
        sae.cfg.rescale_acts_by_decoder_norm = False
    weights = sae.state_dict()
    check_finite(name, weights)
    settings = {key: config.get(key) for key in ("architecture", "k", "apply_b_dec_to_input", "normalize_activations")}
    facts = read_facts(config["metadata"]) if facts is None else facts
    about = About(name, config["architecture"], fingerprint(weights, settings), **facts)
    return SAELensSAE(about, sae, NORMALISATIONS[kind])


def _unchanged(x: Tensor) -> Tensor:
    return x
