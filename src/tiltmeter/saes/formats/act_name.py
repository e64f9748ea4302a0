"""A file of torch with a `NAME_cfg.json` beside it: Nanda's one-layer SAEs, and Kissane & Krzyzanowski's of `hook_z`.

Also the folders of Bussmann's BatchTopK repository, `sae.pt` and `config.json`. All come from one notebook: weights
W_enc, b_enc, W_dec, b_dec; b_dec is subtracted from the input; `act_size` and `dict_size` in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.formats.names import canonical, scheme_of
from tiltmeter.saes.formats.tensors import read_json, read_tensors
from tiltmeter.saes.sae import LinearSAE


def configuration_of(file: Path) -> Path | None:
    """The configuration beside a file of weights; None if there is none of this kind."""
    for beside in (file.with_name(f"{file.stem}_cfg.json"), file.with_name("config.json")):
        if beside.is_file() and {"act_size", "dict_size"} <= read_json(beside, str(file)).keys():
            return beside
    return None


def load_act_name(file: Path, beside: Path, name: str) -> LinearSAE:
    """Load an SAE.

    Raises:
        TiltmeterError: its latents depend on the batch, its kind is not known, or it is damaged.
    """
    config, tensors = read_json(beside, name), read_tensors(file, name).tensors
    weights = canonical(name, tensors, scheme_of(name, tensors))
    k = _k(name, config)
    if k is not None:
        weights["b_enc"] = torch.zeros_like(weights["b_enc"])  # Bussmann's top-k SAEs have one, and do not use it
    normalisation = "layer_norm" if config.get("input_unit_norm") else "none"
    model = config.get("model_name")
    facts = Facts(hook_name=_hook(config), model=model if isinstance(model, str) else None)
    return linear_sae(name, weights, Convention(True, k, normalisation), facts)


def _k(name: str, config: Mapping[str, Any]) -> int | None:
    kind = config.get("sae_type", "vanilla")
    if kind == "vanilla":
        return None
    if kind == "topk" and isinstance(k := config.get("top_k"), int):
        return k
    raise TiltmeterError(
        f"{name} is a {kind} SAE; tiltmeter reads this repository's vanilla and topk ones"
        + (", and the latents of batchtopk depend on the batch." if kind == "batchtopk" else ".")
    )


def _hook(config: Mapping[str, Any]) -> str | None:
    hook = config.get("act_name") or config.get("hook_point")
    return hook if isinstance(hook, str) and "." in hook else None
