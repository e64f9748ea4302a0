"""Gemma Scope (`params.npz`) and Gemma Scope 2 (`params.safetensors` and `config.json`).

JumpReLU SAEs (Lieberum et al. 2024). b_dec is not subtracted from the input. What the files do not say (the site and,
in Gemma Scope, the model) is in the names of the folders and of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltmeter.errors import TiltmeterError
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

_LAYER = re.compile(r"/layer_(\d+)")
_FOLDER = re.compile(r"/(resid_post|mlp_out|attn_out)(?:_\w+)?/")
_REPOSITORY = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att)\b")
_TRANSCODER = re.compile(r"gemma-scope-\d+b-pt-transcoders|/(transcoder|clt)(_\w+)?/")
_EMBEDDING = re.compile(r"/embedding/width_")


def weights_of(folder: Path) -> Path | None:
    """The file of weights in a folder of Gemma Scope; None if it is none."""
    return next((folder / file for file in FILES if (folder / file).is_file()), None)


def load_gemma_scope(file: Path, name: str) -> LinearSAE:
    """Load an SAE of either series.

    Raises:
        TiltmeterError: it has no thresholds, is a transcoder, reads unscaled embeddings, or is damaged.
    """
    beside = file.parent / "config.json"
    config = read_json(beside, name) if beside.is_file() else {}
    where = file.absolute().as_posix()
    _refuse(name, where, config)
    tensors = read_tensors(file, name).tensors
    weights = canonical(name, tensors, scheme_of(name, tensors))
    if THRESHOLD not in weights:
        raise TiltmeterError(f"{name} has no {THRESHOLD}, so it is not of Gemma Scope, whose SAEs are JumpReLU ones.")
    facts = Facts(hook_name=_hook(where), model=_model(where, config), processing="raw")
    return linear_sae(name, weights, Convention(apply_b_dec_to_input=False), facts)


def _refuse(name: str, where: str, config: Mapping[str, Any]) -> None:
    """Refuse what has the weights of an SAE and is none; only configurations and folders tell."""
    if (architecture := config.get("architecture", "jump_relu")) != "jump_relu":
        raise TiltmeterError(f"{name} is {architecture!r}; tiltmeter reads Gemma Scope's jump_relu SAEs.")
    read, written = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    if written not in (None, read) or (read is None and _TRANSCODER.search(where)):
        raise TiltmeterError(f"{name} is a transcoder: its output is not a reconstruction of its input; give an SAE.")
    if _EMBEDDING.search(where):
        raise TiltmeterError(
            f"{name} reads the embedding before the model scales it, which is not a site; give an SAE of a layer."
        )


def _hook(where: str) -> str | None:
    """The site, if folders or repository name both the layer and what the SAE reads."""
    layers, folders, repositories = (found.findall(where) for found in (_LAYER, _FOLDER, _REPOSITORY))
    kind = folders[-1] if folders else repositories[-1][2] if repositories else None
    return f"blocks.{layers[-1]}.{_KINDS[kind]}" if layers and kind else None


def _model(where: str, config: Mapping[str, Any]) -> str | None:
    if isinstance(model := config.get("model_name"), str):
        return model.replace("gemma-v3", "gemma-3")
    if not (found := _REPOSITORY.findall(where)):
        return None
    size, tuned, _ = found[-1]
    return f"gemma-2-{size}{'-it' if tuned == 'it' else ''}"
