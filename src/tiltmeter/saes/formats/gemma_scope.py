"""Gemma Scope (`params.npz`) and Gemma Scope 2 (`params.safetensors` and `config.json`).

JumpReLU SAEs (Lieberum et al. 2024). b_dec is not subtracted from the input. Nothing but the folders above says that a
file of the first series is a transcoder's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

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
}
"""The folders of Gemma Scope 2; its SAEs of attention read the heads' outputs."""

_MLP_INPUT = "pre_feedforward_layernorm.output"
"""What the second series calls the MLP's input."""

_LAYER = re.compile(r"layer_(\d+)")
_TRANSCODER = re.compile(r"gemma-scope[\w.-]*-transcoders/|/transcoder(_all)?/")
"""The repository of the first series, and the folders of the second."""


def weights_of(folder: Path) -> Path | None:
    """The file of weights in a folder of Gemma Scope; None if it is none."""
    return next((folder / file for file in FILES if (folder / file).is_file()), None)


def load_gemma_scope(file: Path, name: str) -> LinearSAE | Dictionary:
    """Load an SAE of either series, or the decoder rows of a transcoder.

    Raises:
        TiltmeterError: it has no thresholds, or is damaged.
    """
    tensors = read_tensors(file, name).tensors
    beside = file.parent / "config.json"
    config = read_json(beside, name) if beside.is_file() else {}
    model, place = config.get("model_name"), file.resolve().as_posix()
    facts = Facts(hook_name=_hook(place), model=model if isinstance(model, str) else None, processing="raw")
    reads, writes = (config.get(f"hf_hook_point_{end}") for end in ("in", "out"))
    if is_transcoder(tensors) or writes not in (None, reads) or _TRANSCODER.search(place):
        layer = _LAYER.search(place)
        site = Facts(hook_name=f"blocks.{layer[1]}.hook_mlp_out" if layer else None)
        found = transcoder(name, rows_of(name, tensors), reads or "the MLP's input", facts | site)
        encoder = _encoder(reads, tensors)
        return found if encoder is None else with_encoder(found, encoder)
    weights = canonical(name, tensors, scheme_of(name, tensors))
    if THRESHOLD not in weights:
        raise TiltmeterError(f"{name} has no {THRESHOLD}, so it is not of Gemma Scope, whose SAEs are JumpReLU ones.")
    if (architecture := config.get("architecture", "jump_relu")) != "jump_relu":
        raise TiltmeterError(f"{name} is {architecture!r}; tiltmeter reads Gemma Scope's jump_relu SAEs.")
    return linear_sae(name, weights, Convention(apply_b_dec_to_input=False), facts)


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


def _hook(file: str) -> str | None:
    """The site, if the folders above name both the layer and what the SAE reads."""
    layer = _LAYER.search(file)
    kind = next((hook for part, hook in _KINDS.items() if f"/{part}" in file), None)
    return f"blocks.{layer[1]}.{kind}" if layer and kind else None
