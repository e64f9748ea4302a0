"""Folders in SAELens's format: `cfg.json` and `sae_weights.safetensors`, of any version, trained or checkpoints.

Read without the `sae_lens` library, and tested to equal it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import GATES, THRESHOLD, WEIGHTS, Convention, checked, linear_sae
from tiltmeter.saes.formats.saelens_config import (
    UNFINISHED,
    check_kind,
    current_config,
    metadata_of,
    number,
    read_facts,
)
from tiltmeter.saes.formats.tensors import read_json, read_tensors
from tiltmeter.saes.normalisation import NORMALISATIONS
from tiltmeter.saes.sae import LinearSAE

CONFIG = "cfg.json"
FILE = "sae_weights.safetensors"

SCALER = "activation_scaler.json"
"""What a checkpoint's activations are multiplied with before encoding."""

TOPK_THRESHOLD = "topk_threshold"
"""The threshold of a checkpoint of a batch-top-k SAE, which its finished form compares latents with."""


def load_folder(
    folder: Path, name: str, overrides: Mapping[str, Any] = MappingProxyType({}), scale: float | None = None
) -> LinearSAE:
    """Load the SAE of a folder.

    Args:
        folder: the folder.
        name: the name by which the user gave it.
        overrides: settings that replace those of its configuration.
        scale: what activations are multiplied with before they are encoded, if the configuration says that they are
            scaled and no file says by how much.

    Raises:
        TiltmeterError: it is not an SAE, is damaged, or of an architecture that tiltmeter does not support.
    """
    config = current_config(name, {**read_config(folder), **overrides})
    check_kind(name, config)
    if not (folder / FILE).is_file():
        raise TiltmeterError(f"{name} has a {CONFIG} but no {FILE} beside it; give a folder that SAELens saved.")
    weights = read_tensors(folder / FILE, f"{FILE} of {name}").tensors
    _check_widths(name, config, weights)
    weights = _known_weights(name, config, weights)
    factor, normalisation = _normalisation(name, config, folder, scale)
    if config.get("rescale_acts_by_decoder_norm"):
        weights = _unit_rows(checked(name, weights))
    if factor is not None:
        weights = checked(name, weights)
        weights |= {"W_enc": weights["W_enc"] * factor}
        weights |= {key: weights[key] / factor for key in ("W_dec", "b_dec")}
    convention = Convention(bool(config.get("apply_b_dec_to_input", True)), _k(name, config), normalisation)
    return linear_sae(name, weights, convention, read_facts({**metadata_of(config), **overrides}))


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


def _known_weights(name: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of this architecture, in float32.

    Raises:
        TiltmeterError: there are others, which might change the output.
    """
    architecture = config["architecture"]
    own = {"gated": GATES, "jumprelu": (THRESHOLD,)}.get(architecture, ())
    found = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    if (scale := found.pop("scaling_factor", None)) is not None and bool((scale != 1).any()):
        raise TiltmeterError(f"{name} has a scaling_factor for each latent; fold it into W_dec with SAELens first.")
    if architecture in UNFINISHED:
        if not (found.get(TOPK_THRESHOLD, torch.zeros(())) > 0).all():
            raise TiltmeterError(
                f"{name} is a checkpoint of a {architecture} SAE whose {TOPK_THRESHOLD} was not yet set, so latents "
                "depend on the batch; give a later one."
            )
        found[THRESHOLD], own = found.pop(TOPK_THRESHOLD), (THRESHOLD,)
    elif architecture == "jumprelu" and "log_threshold" in found:
        found[THRESHOLD] = found.pop("log_threshold").exp()
    if strangers := sorted(found.keys() - {*WEIGHTS, *own}):
        raise TiltmeterError(f"{name} has {strangers[0]}, which {architecture} SAEs of SAELens do not have.")
    if missing := [key for key in own if key not in found]:
        raise TiltmeterError(
            f"{name} is a {architecture} SAE without a {missing[0]}; its file is incomplete: download it again."
        )
    return found


def _unit_rows(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same SAE with decoder rows of length 1, which latents are otherwise multiplied with before they compete."""
    norms = weights["W_dec"].norm(dim=-1)
    return weights | {
        "W_enc": weights["W_enc"] * norms,
        "b_enc": weights["b_enc"] * norms,
        "W_dec": weights["W_dec"] / norms[:, None],
    }


def _normalisation(name: str, config: Mapping[str, Any], folder: Path, scale: float | None) -> tuple[float | None, str]:
    """The factor to fold into the weights, and what is done to each token."""
    kind = config.get("normalize_activations") or "none"
    if kind in NORMALISATIONS:
        return None, kind
    file = folder / SCALER
    if kind == "expected_average_only_in" and config["architecture"] not in UNFINISHED:
        factor = number(read_json(file, name).get("scaling_factor")) if file.is_file() else scale
        if factor is not None and factor > 0:
            return factor, "none"
    raise TiltmeterError(
        f"{name} was trained on activations scaled by {kind}, and its files do not state the factor; fold it into "
        "the weights with SAELens and save them again."
    )


def _check_widths(name: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    said = [config["d_in"], config["d_sae"]]
    if "W_enc" in weights and (found := [*weights["W_enc"].shape]) != said:
        raise TiltmeterError(f"W_enc of {name} is {found}, but its {CONFIG} says {said}; they are not of one SAE.")


def _k(name: str, config: Mapping[str, Any]) -> int | None:
    if config["architecture"] != "topk":
        return None
    k = config.get("k")
    if not (isinstance(k, int) or (isinstance(k, float) and k.is_integer())):
        raise TiltmeterError(f"{name} is a topk SAE, but its {CONFIG} says k = {k!r}; expected a whole number.")
    return int(k)
