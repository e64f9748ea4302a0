"""Writing an SAE in SAELens's format: a folder with `cfg.json` and `sae_weights.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from tiltmeter.saes.formats.saelens_folder import CONFIG, FILE
from tiltmeter.saes.sae import JumpReLU, LinearSAE, Processing, TopK

FORMAT = "6.0.0"
"""Version of SAELens whose format is written. Without it, SAELens reads the configuration as an older, flat one."""

_PROCESSING: Mapping[Processing | None, Mapping[str, bool]] = {
    "centred": {"center_writing_weights": True},
    "raw": {"center_writing_weights": False},
    "folded": {"fold_value_biases": True},
}
"""The arguments with which SAELens must load the model."""


def saelens_files(sae: LinearSAE, metadata: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, bytes]:
    """The files of SAELens's format (version 6), by name. `metadata` is added to the SAE's own, and overrides it."""
    about = sae.about
    config: dict[str, Any] = {
        "architecture": about.architecture,
        "d_in": sae.W_dec.shape[1],
        "d_sae": sae.W_dec.shape[0],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": bool(sae.input_bias.any()),
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if str(about.hook_name).endswith("hook_z") else "none",
        "metadata": {
            "sae_lens_version": FORMAT,
            "model_name": about.model,
            "hook_name": about.hook_name,
            "prepend_bos": about.prepend_bos,
            "model_from_pretrained_kwargs": _PROCESSING.get(about.processing, {}),
            **metadata,
        },
    }
    if isinstance(sae.activation, TopK):
        config |= {"k": sae.activation.k, "rescale_acts_by_decoder_norm": False}
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if isinstance(sae.activation, JumpReLU):
        weights["threshold"] = sae.activation.threshold
    weights = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    return {CONFIG: (json.dumps(config, indent=2) + "\n").encode(), FILE: safetensors.torch.save(weights)}
