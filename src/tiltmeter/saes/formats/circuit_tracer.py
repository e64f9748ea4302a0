"""Folders that circuit-tracer reads: a transcoder for each layer, or a cross-layer transcoder (Ameisen et al. 2025).

`config.yaml` names the hooks. A set of transcoders has `layer_N.safetensors` with W_dec [latent, d]. A cross-layer
transcoder has `W_dec_N.safetensors` for the latents of each layer N, with W_dec_N [latent, layers - N, d]: what they
write to layer N and each later one. The rows at a layer are those of the latents of all layers up to it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.decoders import Choice, chosen, dictionary, rows_of, transcoder
from tiltmeter.saes.formats.encoders import Encoder, mlp_input, with_encoder
from tiltmeter.saes.formats.hook_names import site_name
from tiltmeter.saes.formats.linear import Facts
from tiltmeter.saes.formats.tensors import read_tensors

CONFIG = "config.yaml"
_RELU = (None, "relu")
KINDS = ("transcoder_set", "cross_layer_transcoder")

_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_DECODER = re.compile(r"W_dec_(\d+)\.safetensors")


def is_circuit_tracer(folder: Path) -> bool:
    """Whether a folder holds a cross-layer transcoder, or a set of transcoders with its configuration."""
    return bool(_layers(folder, _DECODER)) or (
        bool(_layers(folder, _LAYER)) and _configuration(folder).get("model_kind") == KINDS[0]
    )


def is_one_of_a_set(file: Path) -> bool:
    """Whether a file is the transcoder of one layer, in a folder whose configuration says so."""
    return _LAYER.fullmatch(file.name) is not None and is_circuit_tracer(file.parent)


def load_circuit_tracer(folder: Path, name: str, choice: Choice) -> Dictionary:
    """Load the decoder rows at one layer.

    Raises:
        TiltmeterError: which layer is wanted is not known; a file is missing or damaged.
    """
    cross = _layers(folder, _DECODER)
    layers = cross or _layers(folder, _LAYER)
    hooks = [_hook(folder, layer) for layer in layers]
    layer = layers[chosen(name, hooks, choice)]
    if not cross:
        return load_layer(folder / f"layer_{layer}.safetensors", name)
    if layers != list(range(len(layers))):
        raise TiltmeterError(f"{name} has W_dec of the layers {layers}; expected all from 0 on: download it again.")
    rows = torch.cat([_written(folder, source, layer, len(layers), name) for source in layers if source <= layer])
    what = f"a cross-layer transcoder, whose latents are computed from the inputs of layers 0 to {layer}"
    return dictionary(name, "cross_layer_transcoder", what, rows, _facts(folder, layer))


def load_layer(file: Path, name: str) -> Dictionary:
    """Load the decoder rows of one file of a set of transcoders.

    Raises:
        TiltmeterError: it is damaged.
    """
    match = _LAYER.fullmatch(file.name)
    assert match is not None
    config, tensors = _configuration(file.parent), read_tensors(file, name).tensors
    reads, facts = config.get("feature_input_hook"), _facts(file.parent, int(match[1]))
    found = transcoder(name, rows_of(name, tensors), f"{reads} of the block" if reads else None, facts)
    known = mlp_input(f"blocks.{match[1]}.{reads}", facts["hook_name"])
    plain = tensors.keys() <= {"W_enc", "b_enc", "W_dec", "b_dec", "W_skip"} and config.get("activation") in _RELU
    if known is None or not plain:
        return found
    skip = tensors.get("W_skip")  # [d_out, d_in]
    W_enc, b_enc, b_dec = (tensors[key] for key in ("W_enc", "b_enc", "b_dec"))
    return with_encoder(found, Encoder(known, W_enc.T, b_enc, b_dec, W_skip=None if skip is None else skip.T))


def _layers(folder: Path, pattern: re.Pattern[str]) -> list[int]:
    return sorted(int(match[1]) for file in folder.iterdir() if (match := pattern.fullmatch(file.name)))


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TiltmeterError(f"{CONFIG} of {folder} could not be read: {error}; download it again.") from None
    return found if isinstance(found, dict) else {}


def _hook(folder: Path, layer: int) -> str:
    """The site that is written to at a layer; circuit-tracer's default is the MLP's output."""
    hook = str(_configuration(folder).get("feature_output_hook") or "hook_mlp_out")
    return site_name(hook.replace("{layer}", str(layer)) if "{layer}" in hook else f"blocks.{layer}.{hook}")


def _facts(folder: Path, layer: int) -> Facts:
    model = _configuration(folder).get("model_name")
    return Facts(hook_name=_hook(folder, layer), model=model if isinstance(model, str) else None, processing="raw")


def _written(folder: Path, source: int, layer: int, layers: int, name: str) -> Tensor:
    """What the latents of one layer write to another, read without the rest of the file, which may be gigabytes."""
    key, after = f"W_dec_{source}", layer - source
    try:
        with safe_open(folder / f"{key}.safetensors", framework="pt") as file:
            part = file.get_slice(key)
            if (shape := part.get_shape())[1:2] != [layers - source] or len(shape) != 3:
                raise TiltmeterError(f"{key} of {name} is {shape}; expected [latents, {layers - source}, d].")
            return part[:, after : after + 1][:, 0].float()
    except (OSError, SafetensorError) as error:
        raise TiltmeterError(f"{key}.safetensors of {name} could not be read: {error}; download it again.") from None
