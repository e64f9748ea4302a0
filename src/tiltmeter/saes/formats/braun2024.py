"""Braun et al.'s own files: `final_config.yaml` and `samples_N.pt`, as their training runs leave them.

Braun et al. 2024, "Identifying Functionally Important Features with End-to-End Sparse Dictionary Learning". A `.pt` is
the state dict of SAEs by the hook point they are at, with `-` for `.`. The decoder's columns are scaled to unit length
whenever it is used, and stored as training left them; nothing is subtracted before encoding.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.functional import normalize

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.four_weights import Convention, Facts, linear_sae
from tiltmeter.saes.sae import LinearSAE

CONFIG = "final_config.yaml"

_SAMPLES = re.compile(r"samples_(\d+)\.pt")
_KEY = re.compile(r"(?P<hook>.+)\.(?P<part>encoder\.0\.weight|encoder\.0\.bias|decoder\.weight|decoder\.bias)")
_PARTS = 4


def final_file(folder: Path) -> Path | None:
    """The `samples_N.pt` of the largest N, or None."""
    found = {int(match[1]): file for file in folder.iterdir() if (match := _SAMPLES.fullmatch(file.name))}
    return found[max(found)] if found else None


def load_braun(path: Path, name: str, chosen: str = "") -> LinearSAE:
    """The SAE of a `.pt` file, or of the last one in a run's folder.

    Args:
        path: the file or folder.
        name: what the user called it.
        chosen: the hook point, where a file has SAEs at several.

    Raises:
        TiltmeterError: the file cannot be read without unpickling code, is not of this kind, or has no SAE there.
    """
    file = final_file(path) if path.is_dir() else path
    if file is None:
        raise TiltmeterError(
            f"{name} has no samples_N.pt, as a run of Braun et al. leaves; give such a folder or file."
        )
    hook, parts = _choose(_by_hook(_read(file, name), name), name, chosen)
    weights = {
        "W_enc": _transposed(parts["encoder.0.weight"]),
        "b_enc": parts["encoder.0.bias"],
        "W_dec": _transposed(normalize(parts["decoder.weight"].float(), dim=0)),
        "b_dec": parts["decoder.bias"],
    }
    # Their models are loaded with TransformerLens's default processing, and no boundary token is put before the data.
    found = _configuration(file.parent / CONFIG)
    facts = Facts(kind=_kind(found), hook_name=hook, model=_model(found), processing="centred", prepend_bos=False)
    return linear_sae(name, weights, Convention(apply_b_dec_to_input=False), facts)


def _read(file: Path, name: str) -> Mapping[Any, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler's, the archive's and the system's errors are all different
        raise TiltmeterError(
            f"{name} could not be read as weights only ({_reason(error)}), and tiltmeter runs no code of a "
            "pickle; give the state dict of an SAE."
        ) from None
    return state if isinstance(state, Mapping) else {}


def _reason(error: Exception) -> str:
    """Not what torch says of a pickle: it advises to run its code."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds other things than tensors, or is damaged"
    return str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(".") or type(error).__name__


def _by_hook(state: Mapping[Any, Any], name: str) -> dict[str, dict[str, Tensor]]:
    """The parts of each SAE, by its hook point."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if (match := _KEY.fullmatch(str(key))) and isinstance(value, Tensor):
            found.setdefault(match["hook"].replace("-", "."), {})[match["part"]] = value
    if not found or any(len(parts) < _PARTS for parts in found.values()):
        has = ", ".join(map(str, [*state][:3])) or "no weights"
        raise TiltmeterError(
            f"{name} is no SAE of Braun et al.: expected HOOK.encoder.0.weight, .encoder.0.bias, .decoder.weight and "
            f".decoder.bias, but it has {has}; save others as .safetensors with W_enc, b_enc, W_dec, b_dec."
        )
    return found


def _choose(found: dict[str, dict[str, Tensor]], name: str, chosen: str) -> tuple[str, dict[str, Tensor]]:
    if not chosen and len(found) == 1:
        return next(iter(found.items()))
    if chosen in found:
        return chosen, found[chosen]
    wish = f"none at {chosen}" if chosen else "several"
    raise TiltmeterError(f"{name} has SAEs at {', '.join(sorted(found))}, {wish}; name one: FILE#{min(found)}.")


def _transposed(weight: Tensor) -> Tensor:
    return weight.T if weight.ndim == 2 else weight  # what is no matrix is refused later, with its shape


def _configuration(file: Path) -> Mapping[str, Any]:
    """What stands in the run's configuration, where it lies beside the weights."""
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise TiltmeterError(f"{file} could not be read as YAML: {reason}; repair it or take it away.") from None
    return content if isinstance(content, dict) else {}


def _model(configuration: Mapping[str, Any]) -> str | None:
    name = configuration.get("tlens_model_name")
    return name if isinstance(name, str) else None


def _kind(configuration: Mapping[str, Any]) -> str | None:
    """What an SAE was trained for, from the terms of its loss."""
    loss = configuration.get("loss")
    if not isinstance(loss, dict):
        return None
    kl = loss.get("logits_kl")
    if not isinstance(kl, dict) or not kl.get("coeff"):
        return "local"
    return "e2e+ds" if loss.get("in_to_orig") else "e2e"
