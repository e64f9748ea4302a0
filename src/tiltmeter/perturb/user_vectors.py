"""User vectors, for directions named `along:FILE`: steering vectors, probes, or anything of the site's width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.names import ALONG, DirectionName
from tiltmeter.runs.user_paths import user_path


def load_vectors(name: DirectionName) -> dict[DirectionName, Tensor]:
    """Load the vectors of a file, in float64, keyed by their direction names.

    A `.npy` file holds one vector or a matrix of rows; a `.safetensors` file any number of either. `along:FILE` means
    all of them, `along:steer.npy#3` the fourth row of a matrix, `along:probes.safetensors#sex` the vector of that name
    and `along:probes.safetensors#sex.3` the fourth row of the matrix of that name. One vector alone in a `.npy` file
    is called `along:steer.npy`.

    Raises:
        TiltmeterError: the file does not exist, has another format, has no vector of that name, or contains NaN, an
            infinity or a zero vector.
    """
    path, chosen = _split(name.argument or "")
    if not path.is_file():
        raise TiltmeterError(f"{path} is not a file; along:FILE needs a .npy or .safetensors file of vectors.")
    vectors: dict[str, Tensor] = {}
    for key, tensor in sorted(_read(path).items()):
        rows = _rows(f"{ALONG}:{path.name}", key, tensor)
        if twice := sorted(rows.keys() & vectors.keys()):
            raise TiltmeterError(f"{path} has two vectors that would both be called {twice[0]}; rename one of them.")
        vectors |= rows
    vectors = _choose(vectors, path, chosen)
    for direction, vector in vectors.items():
        _check(direction, vector)
    return {DirectionName.parse(direction): vector for direction, vector in vectors.items()}


def _split(name: str) -> tuple[Path, str]:
    """Split into a file and which of its vectors (empty for all). A file name that itself contains # is not split."""
    if (path := user_path(name)).is_file():
        return path, ""
    file, _, chosen = name.partition("#")
    return user_path(file), chosen


def _choose(vectors: dict[str, Tensor], path: Path, chosen: str) -> dict[str, Tensor]:
    name = f"{ALONG}:{path.name}#{chosen}"
    if not vectors:
        raise TiltmeterError(f"{path} contains no vectors; give a file with at least one.")
    if not chosen:
        return vectors
    if name in vectors:
        return {name: vectors[name]}
    some = ", ".join([*vectors][:5]) + (", ..." if len(vectors) > 5 else "")
    raise TiltmeterError(f"{path} has no vector {chosen!r}; it has {some}.")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".npy":
            return {"": torch.from_numpy(np.load(path, allow_pickle=False))}
        if path.suffix == ".safetensors":
            return dict(load_file(path))
    except (ValueError, OSError, EOFError, TypeError, MemoryError, SafetensorError) as error:
        raise TiltmeterError(f"{path} could not be read as {path.suffix} without unpickling it: {error}.") from None
    raise TiltmeterError(
        f"{path} is a {path.suffix or 'nameless'} file; vectors are read from .npy and .safetensors files, never "
        "from pickles."
    )


def _rows(stem: str, key: str, tensor: Tensor) -> dict[str, Tensor]:
    if tensor.ndim not in (1, 2) or tensor.numel() == 0 or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TiltmeterError(
            f"{stem} holds {key or 'an array'} of shape {tuple(tensor.shape)} and type {tensor.dtype}; vectors must "
            "be real arrays of shape [width] or [rows, width]."
        )
    tensor = tensor.double()
    if tensor.ndim == 1:
        return {f"{stem}#{key}" if key else stem: tensor}
    return {f"{stem}#{key}.{i}" if key else f"{stem}#{i}": row for i, row in enumerate(tensor)}


def _check(direction: str, vector: Tensor) -> None:
    if not bool(torch.isfinite(vector).all()):
        raise TiltmeterError(f"The vector {direction} contains NaN or an infinity; give finite numbers.")
    if not bool(vector.any()):
        raise TiltmeterError(f"The vector {direction} is zero, which has no direction; leave it out.")
