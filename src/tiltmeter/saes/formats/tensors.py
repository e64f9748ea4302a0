"""The tensors of a file: `.safetensors`, `.npz`, or what torch saves, read as weights only. Nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tiltmeter.errors import TiltmeterError

TORCH = frozenset({".pt", ".pth", ".bin", ".ckpt"})
"""Suffixes of files that torch saves."""

SUFFIXES = frozenset({".safetensors", ".npz", *TORCH})

_NESTED = ("state_dict", "model_state_dict", "model", "sae", "autoencoder")
"""Names under which a file may hold the weights, beside other things."""


class Stored(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    """Metadata of a `.safetensors` file; numbers and texts beside the tensors in one of torch."""


def read_tensors(path: Path, name: str) -> Stored:
    """Read a file of weights.

    Raises:
        TiltmeterError: it is missing, damaged, of another kind, or has anything but tensors, numbers and texts.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _safetensors(path, name)
    if suffix == ".npz":
        return _npz(path, name)
    if suffix in TORCH:
        return _torch(path, name)
    raise TiltmeterError(f"The file {name} is of no kind that holds weights; expected {', '.join(sorted(SUFFIXES))}.")


def read_json(file: Path, name: str) -> dict[str, Any]:
    """Read an object from a JSON file beside the weights.

    Raises:
        TiltmeterError: it cannot be read, or is not an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TiltmeterError(f"{file.name} of {name} could not be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise TiltmeterError(f"{file.name} of {name} holds a {type(content).__name__}; expected an object.")
    return content


def _safetensors(path: Path, name: str) -> Stored:
    try:
        with safe_open(path, framework="pt") as file:
            return Stored({key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {}))  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise TiltmeterError(
            f"{name} could not be read as safetensors: {reason}; give the weights of an SAE."
        ) from None


def _npz(path: Path, name: str) -> Stored:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Stored({key: torch.from_numpy(np.array(file[key])) for key in file.files}, {})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TiltmeterError(
            f"{name} could not be read as plain arrays: {error}; give the weights of an SAE."
        ) from None


def _torch(path: Path, name: str) -> Stored:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler's, the archive's and the system's errors are all different
        raise TiltmeterError(
            f"{name} could not be read as weights only ({_reason(error)}), and tiltmeter does not run code from "
            "pickles; give tensors alone, as a state dict."
        ) from None
    if isinstance(content, Tensor):
        return Stored({"": content.detach()}, {})
    if not isinstance(content, Mapping):
        return Stored({}, {})
    settings = {str(key): value for key, value in content.items() if isinstance(value, (str, int, float, dict))}
    for nested in _NESTED:
        if isinstance(found := content.get(nested), Mapping) and any(isinstance(one, Tensor) for one in found.values()):
            content = found
            settings.pop(nested, None)
            break
    return Stored({str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}, settings)


def _unreadable(name: str, kind: str, reason: str) -> TiltmeterError:
    return TiltmeterError(f"{name} could not be read as {kind}: {reason}; give the weights of an SAE.")


def _reason(error: Exception) -> str:
    """The reason, without torch's own message about pickles, which advises running their code."""
    if isinstance(error, pickle.UnpicklingError):
        return "it contains objects other than tensors, or is damaged"
    return str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(".") or type(error).__name__
