"""Gemma Scope (`params.npz`) and Gemma Scope 2 (`params.safetensors` and `config.json`).

JumpReLU SAEs (Lieberum et al. 2024). b_dec is not subtracted from the input. What the files do not say (the site and,
in Gemma Scope, the model, and whether it is a transcoder) is in the names of the folders and of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.decoders import is_transcoder, rows_of, transcoder
from tiltmeter.saes.formats.encoders import Encoder, with_encoder
from tiltmeter.saes.formats.linear import THRESHOLD, Convention, Facts, linear_sae
from tiltmeter.saes.formats.names import canonical, scheme_of
from tiltmeter.saes.formats.tensors import read_json, read_tensors
from tiltmeter.saes.sae import LinearSAE

FILES = ("params.npz", "params.safetensors")

_KINDS = {
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "attn.hook_z",
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
}
"""Folders of Gemma Scope 2 and ends of Gemma Scope's repositories; SAEs of attention read the heads' outputs."""

_MLP_INPUT = "pre_feedforward_layernorm.output"
"""What the second series calls the MLP's input, which all its transcoders read."""

_LAYER = re.compile(r"/layer_(\d+)")
_FOLDER = re.compile(r"/(resid_post|mlp_out|attn_out)(?:_\w+)?/")
_REPOSITORY = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)\b")
_TRANSCODER = re.compile(r"gemma-scope[\w.-]*-transcoders/|/transcoder(_\w+)?/")
"""The repository of the first series, and the folders of the second."""

_CROSS_LAYER = re.compile(r"/clt(_\w+)?/")
_EMBEDDING = re.compile(r"/embedding/width_")


def weights_of(folder: Path) -> Path | None:
    """The file of weights in a folder of Gemma Scope; None if it is none."""
    return next((folder / file for file in FILES if (folder / file).is_file()), None)


def load_gemma_scope(file: Path, name: str) -> LinearSAE | Dictionary:
    """Load an SAE of either series, or the decoder rows of a transcoder.

    Raises:
        TiltmeterError: it has no thresholds, reads unscaled embeddings, is a cross-layer transcoder, or is damaged.
    """
    beside = file.parent / "config.json"
    config = read_json(beside, name) if beside.is_file() else {}
    where = file.absolute().as_posix()  # in the hub's cache a file is a link, whose target has another name
    _refuse(name, where, config)
    tensors = read_tensors(file, name).tensors
    if _is_transcoder(where, config, tensors):
        return _transcoder(name, where, config, tensors)
    weights = canonical(name, tensors, scheme_of(name, tensors))
    if THRESHOLD not in weights:
        raise TiltmeterError(f"{name} has no {THRESHOLD}, so it is not of Gemma Scope, whose SAEs are JumpReLU ones.")
    facts = Facts(hook_name=_hook(where), model=_model(where, config), processing="raw")
    return linear_sae(name, weights, Convention(apply_b_dec_to_input=False), facts)


def _refuse(name: str, where: str, config: Mapping[str, Any]) -> None:
    """Refuse what has the weights of an SAE and is none; only configurations and folders tell."""
    if (architecture := config.get("architecture", "jump_relu")) != "jump_relu":
        raise TiltmeterError(f"{name} is {architecture!r}; tiltmeter reads what Gemma Scope calls jump_relu.")
    if _EMBEDDING.search(where):
        raise TiltmeterError(
            f"{name} reads the embedding before the model scales it, which is not a site; give an SAE of a layer."
        )
    if _CROSS_LAYER.search(where):
        raise TiltmeterError(
            f"{name} is of a cross-layer transcoder of Gemma Scope 2, which tiltmeter does not read; give an SAE or a "
            "transcoder of one layer."
        )


def _is_transcoder(where: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether it is a transcoder; the names of the folders count where the configuration does not say what it reads."""
    reads, writes = (config.get(f"hf_hook_point_{end}") for end in ("in", "out"))
    elsewhere = writes not in (None, reads) or str(reads).endswith(_MLP_INPUT)
    return elsewhere or is_transcoder(tensors) or (reads is None and _TRANSCODER.search(where) is not None)


def _transcoder(name: str, where: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Dictionary:
    reads = config.get("hf_hook_point_in")
    if reads is None and "w_enc" in tensors:
        reads = _MLP_INPUT
    layers = _LAYER.findall(where)
    hook = f"blocks.{layers[-1]}.hook_mlp_out" if layers else None
    facts = Facts(hook_name=hook, model=_model(where, config), processing="raw")
    found = transcoder(name, rows_of(name, tensors), reads or "the MLP's input", facts)
    encoder = _encoder(reads, tensors)
    return found if encoder is None else with_encoder(found, encoder)


def _encoder(reads: object, tensors: Mapping[str, Tensor]) -> Encoder | None:
    """The encoder of a transcoder; None where what it reads or its thresholds are not known.

    The first series reads what the norm before the MLP gives without its weights (Lieberum et al. 2024, "Language model
    technical details"); the second says what it reads. Its affine skip connection is [d_in, d_out].
    """
    if not {"b_enc", "b_dec", "threshold"} <= tensors.keys():
        return None
    b_enc, b_dec, threshold = (tensors[key] for key in ("b_enc", "b_dec", "threshold"))
    if (first := tensors.get("W_enc")) is not None and reads is None:
        return Encoder("ln2.hook_normalized", first, b_enc, b_dec, None, threshold)
    if (second := tensors.get("w_enc")) is not None and str(reads).endswith(_MLP_INPUT):
        skip = tensors.get("affine_skip_connection")
        return Encoder("mlp.hook_in", second, b_enc, b_dec, None, threshold, skip)
    return None


def _hook(where: str) -> str | None:
    """The site, if folders or repository name both the layer and what the SAE reads."""
    layers, folders, repositories = (found.findall(where) for found in (_LAYER, _FOLDER, _REPOSITORY))
    kind = folders[-1] if folders else repositories[-1][2] if repositories else None
    return f"blocks.{layers[-1]}.{_KINDS[kind]}" if layers and kind in _KINDS else None


def _model(where: str, config: Mapping[str, Any]) -> str | None:
    if isinstance(model := config.get("model_name"), str):
        return model.replace("gemma-v3", "gemma-3")
    if not (found := _REPOSITORY.findall(where)):
        return None
    size, tuned, _ = found[-1]
    return f"gemma-2-{size}{'-it' if tuned == 'it' else ''}"
