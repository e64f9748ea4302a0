"""Folders of EleutherAI's sparsify (eai-sparsify): `cfg.json` and `sae.safetensors`, in a folder named by the module.

b_dec is subtracted from the input, and the k largest latents are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.decoders import is_transcoder, rows_of, transcoder
from tiltmeter.saes.formats.encoders import Encoder, with_encoder
from tiltmeter.saes.formats.hook_names import transformer_lens_name
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.formats.names import canonical, scheme_of
from tiltmeter.saes.formats.tensors import read_json, read_tensors
from tiltmeter.saes.sae import LinearSAE

CONFIG, FILE = "cfg.json", "sae.safetensors"


def is_sparsify(folder: Path) -> bool:
    """Whether a folder is one of sparsify's."""
    return (folder / CONFIG).is_file() and (folder / FILE).is_file()


def load_sparsify(folder: Path, name: str) -> LinearSAE | Dictionary:
    """Load the SAE of a folder, or the decoder rows of a transcoder from a module's input to its output.

    Raises:
        TiltmeterError: it keeps latents in another way, or is damaged.
    """
    config, tensors = read_json(folder / CONFIG, name), read_tensors(folder / FILE, name).tensors
    module = folder.resolve().name
    training = _training(folder)
    facts = Facts(hook_name=transformer_lens_name(module), model=_model(training), processing="raw")
    transcodes = config.get("transcode") or training.get("transcode")  # the latter until February 2025
    if transcodes or config.get("skip_connection") or is_transcoder(tensors):
        found = transcoder(name, rows_of(name, tensors), f"the input of {module}", facts)
        encoder = _encoder(module, config, tensors)
        return found if encoder is None else with_encoder(found, encoder)
    if (activation := config.get("activation", "topk")) != "topk" or config.get("signed"):
        raise TiltmeterError(
            f"{name} keeps its latents by {'signed top-k' if activation == 'topk' else activation}; tiltmeter reads "
            "top-k SAEs whose latents are not negative."
        )
    if not isinstance(k := config.get("k"), int):
        raise TiltmeterError(f"{CONFIG} of {name} has no k; it says how many latents are kept.")
    weights = canonical(name, tensors, scheme_of(name, tensors))
    return linear_sae(name, weights, Convention(apply_b_dec_to_input=True, k=k), facts | Facts(kind="topk"))


def _encoder(module: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Encoder | None:
    """The encoder of a transcoder of an MLP; None where it is of another module or keeps latents in another way.

    The library adds u W_skipᵀ. It subtracts b_dec from the input unless the configuration has `transcode`, which
    transcoders of before February 2025 do not: they were trained so. The skip connection reads u itself.
    """
    k, skip = config.get("k"), tensors.get("W_skip")
    plain = config.get("activation", "topk") == "topk" and not config.get("signed") and isinstance(k, int)
    if not plain or not module.endswith(".mlp") or not {"encoder.weight", "encoder.bias", "b_dec"} <= tensors.keys():
        return None
    W_enc, b_enc, b_dec = (tensors[key].float() for key in ("encoder.weight", "encoder.bias", "b_dec"))
    if not config.get("transcode"):
        b_enc = b_enc - W_enc @ b_dec
    return Encoder("mlp.hook_in", W_enc.T, b_enc, b_dec, k=k, W_skip=None if skip is None else skip.T)


def _training(folder: Path) -> Mapping[str, Any]:
    """The training's configuration, which lies one folder up; empty if it is not there."""
    file = folder.resolve().parent / "config.json"
    return read_json(file, str(folder)) if file.is_file() else {}


def _model(training: Mapping[str, Any]) -> str | None:
    return str(training["model"]) if isinstance(training.get("model"), str) else None
