"""Folders in SAELens's format: `cfg.json` and `sae_weights.safetensors`.

SAEs of version 6 with four weights and an activation are read here, without the `sae_lens` library; it loads the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.four_weights import THRESHOLD, WEIGHTS, Convention, linear_sae, read_safetensors
from tiltmeter.saes.formats.saelens_config import check_kind, metadata_of, read_facts
from tiltmeter.saes.sae import SAE

CONFIG = "cfg.json"
FILE = "sae_weights.safetensors"


def load_folder(folder: Path, name: str) -> SAE:
    """Load the SAE of a folder.

    Raises:
        TiltmeterError: it is not an SAE, is damaged, or of an architecture that tiltmeter does not support.
    """
    config = read_config(folder)
    check_kind(name, config)
    if not (folder / FILE).is_file():
        raise TiltmeterError(f"{name} has a {CONFIG} but no {FILE} beside it; give a folder that SAELens saved.")
    weights, _ = read_safetensors(folder / FILE, f"{FILE} of {name}")
    if not _is_linear(config, weights):
        from tiltmeter.saes.formats.saelens_release import load_folder_by_library

        return load_folder_by_library(folder, name)
    _check_widths(name, config, weights)
    convention = Convention(bool(config.get("apply_b_dec_to_input", True)), _k(name, config))
    return linear_sae(name, weights, convention, read_facts(metadata_of(config)))


def read_config(folder: Path) -> dict[str, Any]:
    """Read the folder's `cfg.json`.

    Raises:
        TiltmeterError: it is missing, not JSON, or not of an SAE.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TiltmeterError(f"{file} could not be read as JSON: {error}; give a folder that SAELens saved.") from None
    widths = [config.get(key) for key in ("d_in", "d_sae")] if isinstance(config, dict) else [None]
    if not all(isinstance(width, int) for width in widths):
        raise TiltmeterError(f"{file} is not of an SAE: it has no d_in and d_sae; give a folder that SAELens saved.")
    return config


def _is_linear(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bool:
    """Whether the SAE consists of four weights and an activation, with no rescaling or normalisation."""
    expected = {*WEIGHTS, THRESHOLD} if config.get("architecture") == "jumprelu" else {*WEIGHTS}
    return (
        isinstance(config.get("metadata"), Mapping)
        and config.get("architecture") in ("standard", "topk", "jumprelu")
        and config.get("normalize_activations", "none") == "none"
        and not config.get("rescale_acts_by_decoder_norm")
        and not {*weights} - expected
    )


def _check_widths(name: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    said = [config["d_in"], config["d_sae"]]
    if "W_enc" in weights and (found := [*weights["W_enc"].shape]) != said:
        raise TiltmeterError(f"W_enc of {name} is {found}, but its {CONFIG} says {said}; they are not of one SAE.")
    if config["architecture"] == "jumprelu" and THRESHOLD not in weights:
        raise TiltmeterError(
            f"{name} is a jumprelu SAE without a {THRESHOLD}; its file is incomplete: download it again."
        )


def _k(name: str, config: Mapping[str, Any]) -> int | None:
    if config["architecture"] != "topk":
        return None
    k = config.get("k")
    if not (isinstance(k, int) or (isinstance(k, float) and k.is_integer())):
        raise TiltmeterError(f"{name} is a topk SAE, but its {CONFIG} says k = {k!r}; expected a whole number.")
    return int(k)
