"""The shapes of stored arrays, read from the headers of their files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import NamedTuple

LARGEST = 100_000_000
"""Bytes: the longest header of a safetensors file."""


class Stored(NamedTuple):
    """The shape and the type of an array in a file."""

    shape: tuple[int, ...]
    kind: str
    """`int`, `float` or `other`."""


def stored_arrays(path: Path) -> dict[str, Stored]:
    """The arrays of a `.npy` (under the empty name) or `.safetensors` file; none if its header cannot be read."""
    try:
        if path.suffix == ".npy":
            return {"": _npy(path)}
        if path.suffix == ".safetensors":
            return _safetensors(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        pass  # what reads the file says what is wrong with it
    return {}


def _npy(path: Path) -> Stored:
    import numpy as np

    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Stored(array.shape, {"i": "int", "u": "int", "f": "float"}.get(array.dtype.kind, "other"))


def _safetensors(path: Path) -> dict[str, Stored]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(size, LARGEST)))
    kinds = {"I": "int", "U": "int", "F": "float", "B": "float"}
    return {
        name: Stored(tuple(one["shape"]), "other" if one["dtype"] == "BOOL" else kinds.get(one["dtype"][0], "other"))
        for name, one in header.items()
        if name != "__metadata__"
    }
