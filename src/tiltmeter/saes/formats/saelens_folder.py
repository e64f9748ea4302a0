"""Folders in SAELens's format: `cfg.json` and `sae_weights.safetensors`, of any version, trained or checkpoints.

Read without the `sae_lens` library, and tested to equal it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.mlp_input import MLPInput
from tiltmeter.saes.dictionary import Dictionary, Loaded
from tiltmeter.saes.formats.decoders import dictionary, transcoder
from tiltmeter.saes.formats.encoders import Encoder, mlp_input, with_encoder
from tiltmeter.saes.formats.hook_names import layer_of
from tiltmeter.saes.formats.linear import GATES, THRESHOLD, WEIGHTS, Convention, checked, linear_sae
from tiltmeter.saes.formats.saelens_config import (
    OTHER_LATENTS,
    TRANSCODERS,
    UNFINISHED,
    check_kind,
    current_config,
    is_transcoder,
    metadata_of,
    number,
    read_facts,
    written_facts,
)
from tiltmeter.saes.formats.tensors import read_json, read_tensors
from tiltmeter.saes.normalisation import NORMALISATIONS
from tiltmeter.saes.sae import LinearSAE

_GEMMA = re.compile(r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.output")
"""What the MLP of a Gemma 3 model gets, by Hugging Face's name."""

CONFIG = "cfg.json"
FILE = "sae_weights.safetensors"

SCALER = "activation_scaler.json"
"""What a checkpoint's activations are multiplied with before encoding."""

TOPK_THRESHOLD = "topk_threshold"
"""The threshold of a checkpoint of a batch-top-k SAE, which its finished form compares latents with."""


def load_folder(
    folder: Path, name: str, overrides: Mapping[str, Any] = MappingProxyType({}), scale: float | None = None
) -> Loaded:
    """Load the SAE of a folder, or the decoder rows of another dictionary.

    Args:
        folder: the folder.
        name: the name by which the user gave it.
        overrides: settings that replace those of its configuration.
        scale: what activations are multiplied with before they are encoded, if the configuration says that they are
            scaled and no file says by how much.

    Raises:
        TiltmeterError: it is not an SAE, is damaged, or of an architecture that tiltmeter does not support.
    """
    config = _replaced(current_config(name, {**read_config(folder), **overrides}), overrides)
    check_kind(name, config)
    if not (folder / FILE).is_file():
        raise TiltmeterError(f"{name} has a {CONFIG} but no {FILE} beside it; give a folder that SAELens saved.")
    weights = read_tensors(folder / FILE, f"{FILE} of {name}").tensors
    found = rows_alone(name, config, weights)
    return build(name, config, weights, folder, scale) if found is None else found


def _replaced(config: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with these settings in its metadata, too."""
    metadata = config.get("metadata")
    return config | {"metadata": {**metadata, **overrides}} if isinstance(metadata, Mapping) else config


def build(
    name: str,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    folder: Path | None = None,
    scale: float | None = None,
) -> LinearSAE:
    """The SAE of a configuration of version 6 and its weights.

    Args:
        name: the name by which the user gave it.
        config: the configuration.
        weights: the weights.
        folder: a folder that may hold the scale of activations.
        scale: this scale, if there is no file.

    Raises:
        TiltmeterError: they do not fit together, or the scale of activations is not known.
    """
    _check_widths(name, config, weights)
    weights = _known_weights(name, config, weights)
    factor, normalisation = _normalisation(name, config, folder, scale)
    if config.get("rescale_acts_by_decoder_norm") and config["architecture"] in ("topk", *UNFINISHED):
        weights = _unit_rows(checked(name, weights))
    if factor is not None:
        weights = checked(name, weights)
        weights |= {"W_enc": weights["W_enc"] * factor}
        weights |= {key: weights[key] / factor for key in ("W_dec", "b_dec")}
    convention = Convention(bool(config.get("apply_b_dec_to_input", True)), _k(name, config), normalisation)
    return linear_sae(name, weights, convention, read_facts(metadata_of(config)))


def rows_alone(name: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Dictionary | None:
    """The decoder rows, if the configuration is of a dictionary of which nothing else is used; None for an SAE.

    Raises:
        TiltmeterError: the decoder is missing, or not of the configuration's shape.
    """
    architecture, metadata = str(config.get("architecture")), metadata_of(config)
    other = OTHER_LATENTS.get(architecture)
    if not is_transcoder(config) and other is None:
        return None
    said = [config["d_sae"], config.get("d_out") or config["d_in"]]
    if (W_dec := weights.get("W_dec")) is None or [*W_dec.shape] != said:
        found = "missing" if W_dec is None else [*W_dec.shape]
        raise TiltmeterError(f"W_dec of {name} is {found}, but its {CONFIG} says {said}; they are not of one file.")
    if other is not None:
        return dictionary(name, architecture, other, W_dec, read_facts(metadata))
    reads, facts = metadata.get("hook_name"), written_facts(metadata)
    if mlp_input(reads, facts.get("hook_name")) == "hook_resid_mid" and facts.get("processing") is None:
        reads = f"{reads} (its files do not say whether centred or raw)"
    rows = transcoder(name, W_dec, reads, facts)
    encoder = _encoder(config, weights)
    return rows if encoder is None else with_encoder(rows, encoder)


def _encoder(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Encoder | None:
    """The encoder of a transcoder of an MLP; None where its input is another, or how it is used is not known.

    SAELens subtracts nothing from a transcoder's input, and its W_skip is [d_out, d_in].
    """
    kind, reads = str(config.get("architecture")), _reads(metadata_of(config))
    own = {"threshold"} if "jumprelu" in kind else set()
    own |= {"W_skip"} if "skip" in kind else set()
    if reads is None or kind not in TRANSCODERS or weights.keys() != {"W_enc", "b_enc", "W_dec", "b_dec"} | own:
        return None
    if config.get("normalize_activations") not in (None, "none") or config.get("apply_b_dec_to_input"):
        return None
    if config.get("activation_fn", "relu") != "relu":
        return None
    W_enc, b_enc, b_dec = (weights[key] for key in ("W_enc", "b_enc", "b_dec"))
    skip, threshold = weights.get("W_skip"), weights.get("threshold")
    return Encoder(reads, W_enc, b_enc, b_dec, None, threshold, None if skip is None else skip.T)


def _reads(metadata: Mapping[str, Any]) -> MLPInput | None:
    """Which activation before the MLP a transcoder reads; None if it is none of that block's, or not known."""
    out = metadata.get("hook_name_out")
    reads = mlp_input(metadata.get("hook_name"), out)
    if (match := _GEMMA.fullmatch(str(metadata.get("hf_hook_name")))) and layer_of(str(out)) == int(match[1]):
        return "mlp.hook_in"  # of Gemma 3, where SAELens says hook_mlp_in
    if reads == "hook_resid_mid" and read_facts(metadata).get("processing") is None:
        return None  # whether that stream was centred is not known
    options = metadata.get("model_from_pretrained_kwargs")
    folded = isinstance(options, Mapping) and bool(options.get("fold_ln"))
    return "ln2.hook_normalized" if reads == "mlp.hook_in" and folded else reads


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
    norms = weights["W_dec"].norm(dim=-1).clamp(min=1e-8)  # as SAELens, for rows of zeros
    return weights | {
        "W_enc": weights["W_enc"] * norms,
        "b_enc": weights["b_enc"] * norms,
        "W_dec": weights["W_dec"] / norms[:, None],
    }


def _normalisation(
    name: str, config: Mapping[str, Any], folder: Path | None, scale: float | None
) -> tuple[float | None, str]:
    """The factor to fold into the weights, and what is done to each token."""
    kind = config.get("normalize_activations") or "none"
    if kind in NORMALISATIONS:
        return None, kind
    file = None if folder is None else folder / SCALER
    if kind == "expected_average_only_in" and config["architecture"] not in UNFINISHED:
        factor = number(read_json(file, name).get("scaling_factor")) if file and file.is_file() else scale
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
