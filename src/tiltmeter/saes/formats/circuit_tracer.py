"""Folders that circuit-tracer reads: a transcoder for each layer, or a cross-layer transcoder (Ameisen et al. 2025).

`config.yaml` names the hooks. A set of transcoders has `layer_N.safetensors` with W_dec [latent, d]. A cross-layer
transcoder has `W_dec_N.safetensors` for the latents of each layer N, with W_dec_N [latent, layers - N, d]: what they
write to layer N and each later one. The rows at a layer are those of the latents of all layers up to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import MappingProxyType
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

HOOKS = MappingProxyType({"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"})
"""What the transcoders that SAELens lists read and write, where no configuration lies beside them."""

_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_DECODER = re.compile(r"W_dec_(\d+)\.safetensors")


def is_circuit_tracer(folder: Path) -> bool:
    """Whether a folder holds a cross-layer transcoder, or a set of transcoders with its configuration."""
    return bool(_layers(_files(folder), _DECODER)) or (
        bool(_layers(_files(folder), _LAYER)) and _configuration(folder).get("model_kind") == KINDS[0]
    )


def files_of_layers(names: Iterable[str]) -> list[str]:
    """Of the names of files, those of the decoders of each layer: of a cross-layer transcoder, else of a set."""
    names = [*names]
    cross = [name for name in names if _DECODER.fullmatch(name)]
    return cross or [name for name in names if _LAYER.fullmatch(name)]


def needed(folder: Path, files: Iterable[str], name: str, choice: Choice) -> list[str]:
    """Of the files of all layers, those that hold the rows at the one that is wanted.

    Args:
        folder: where the configuration lies.
        files: paths of the files, which need not be there.
        name: the name by which the user gave the folder.
        choice: the layer that is wanted.

    Raises:
        TiltmeterError: which layer is wanted is not known, or what the files are.
    """
    by_name = {PurePosixPath(file).name: file for file in files}
    cross = _layers(by_name, _DECODER)
    layers = cross or _layers(by_name, _LAYER)
    if not cross and _configuration(folder).get("model_kind") != KINDS[0]:
        raise TiltmeterError(
            f"{name} has {len(layers)} files of layers, and its {CONFIG} does not say that they are transcoders; give "
            f"one of them, as {next(iter(by_name))}."
        )
    layer = layers[chosen(name, [_hook(_configuration(folder), one) for one in layers], choice)]
    if not cross:
        return [by_name[f"layer_{layer}.safetensors"]]
    return [by_name[f"W_dec_{source}.safetensors"] for source in cross if source <= layer]


def is_one_of_a_set(file: Path) -> bool:
    """Whether a file is the transcoder of one layer, in a folder whose configuration says so."""
    return _LAYER.fullmatch(file.name) is not None and is_circuit_tracer(file.parent)


def load_circuit_tracer(folder: Path, name: str, choice: Choice) -> Dictionary:
    """Load the decoder rows at one layer.

    Raises:
        TiltmeterError: which layer is wanted is not known; a file is missing or damaged.
    """
    config, files = _configuration(folder), _files(folder)
    cross = _layers(files, _DECODER)
    layers = cross or _layers(files, _LAYER)
    layer = layers[chosen(name, [_hook(config, layer) for layer in layers], choice)]
    if not cross:
        return load_layer(folder / f"layer_{layer}.safetensors", name)
    if layers != list(range(len(layers))):
        raise TiltmeterError(f"{name} has W_dec of the layers {layers}; expected all from 0 on: download it again.")
    count = _count(folder, name)
    rows = torch.cat([_written(folder, source, layer, count, name) for source in layers if source <= layer])
    what = f"a cross-layer transcoder, whose latents are computed from the inputs of layers 0 to {layer}"
    return dictionary(name, "cross_layer_transcoder", what, rows, _facts(config, layer))


def load_layer(file: Path, name: str, known: Mapping[str, Any] = MappingProxyType({})) -> Dictionary:
    """Load the decoder rows of one file of a set of transcoders.

    Args:
        file: the file.
        name: the name by which the user gave it.
        known: settings that the configuration has if it does not say otherwise.

    Raises:
        TiltmeterError: it is damaged.
    """
    match = _LAYER.fullmatch(file.name)
    assert match is not None
    config, tensors = {**known, **_configuration(file.parent)}, read_tensors(file, name).tensors
    reads, facts = config.get("feature_input_hook"), _facts(config, int(match[1]))
    found = transcoder(name, rows_of(name, tensors), f"{reads} of the block" if reads else None, facts)
    of_the_mlp = mlp_input(f"blocks.{match[1]}.{reads}", facts["hook_name"])
    plain = tensors.keys() <= {"W_enc", "b_enc", "W_dec", "b_dec", "W_skip"} and config.get("activation") in _RELU
    if of_the_mlp is None or not plain:
        return found
    skip = tensors.get("W_skip")  # [d_out, d_in]
    W_enc, b_enc, b_dec = (tensors[key] for key in ("W_enc", "b_enc", "b_dec"))
    return with_encoder(found, Encoder(of_the_mlp, W_enc.T, b_enc, b_dec, W_skip=None if skip is None else skip.T))


def _files(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def _layers(names: Iterable[str], pattern: re.Pattern[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TiltmeterError(f"{CONFIG} of {folder} could not be read: {error}; download it again.") from None
    return found if isinstance(found, dict) else {}


def _hook(config: Mapping[str, Any], layer: int) -> str:
    """The site that is written to at a layer; circuit-tracer's default is the MLP's output."""
    hook = str(config.get("feature_output_hook") or "hook_mlp_out")
    return site_name(hook.replace("{layer}", str(layer)) if "{layer}" in hook else f"blocks.{layer}.{hook}")


def _facts(config: Mapping[str, Any], layer: int) -> Facts:
    model = config.get("model_name")
    return Facts(hook_name=_hook(config, layer), model=model if isinstance(model, str) else None, processing="raw")


def _written(folder: Path, source: int, layer: int, count: int, name: str) -> Tensor:
    """What the latents of one layer write to another of `count`, read without the rest of the file, maybe gigabytes."""
    with _decoder(folder, source, name) as part:
        if (shape := part.get_shape())[1:2] != [count - source] or len(shape) != 3:
            raise TiltmeterError(f"W_dec_{source} of {name} is {shape}; expected [latents, {count - source}, d].")
        after = layer - source
        return part[:, after : after + 1][:, 0].float()


def _count(folder: Path, name: str) -> int:
    """The number of layers of a cross-layer transcoder, of which a folder may have the first alone."""
    with _decoder(folder, 0, name) as part:
        return int((*part.get_shape(), 0, 0)[1])


@contextmanager
def _decoder(folder: Path, source: int, name: str) -> Iterator[Any]:
    """The decoder of the latents of one layer, which is not read as a whole."""
    key = f"W_dec_{source}"
    try:
        with safe_open(folder / f"{key}.safetensors", framework="pt") as file:
            yield file.get_slice(key)
    except (OSError, SafetensorError) as error:
        raise TiltmeterError(f"{key}.safetensors of {name} could not be read: {error}; download it again.") from None
