"""The shapes of stored arrays, read from the headers of their files."""

from __future__ import annotations

import json
import pickletools
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

LARGEST = 100_000_000
"""Bytes: the longest header of a safetensors file."""

LARGEST_PICKLE = 10_000_000
"""Bytes: the longest list of tensors that is looked at in a file that torch saved."""

DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What damaged and encrypted files raise."""

_OF_STORAGE = re.compile(r"\d+|cpu|cuda:\d+|storage|.* .*|")
"""What torch writes for each tensor beside its name."""


class Stored(NamedTuple):
    """The shape and the type of an array in a file."""

    shape: tuple[int, ...]
    kind: str
    """`int`, `float` or `other`."""


def stored_arrays(path: Path) -> dict[str, Stored]:
    """The arrays of a `.npy` (under the empty name), `.npz` or `.safetensors` file; none if they cannot be read."""
    try:
        if path.suffix == ".npy":
            return {"": _npy(path)}
        if path.suffix == ".npz":
            return _npz(path)
        if path.suffix == ".safetensors":
            return _safetensors(path)
    except (KeyError, TypeError, AttributeError, struct.error, RecursionError, *DAMAGED):
        pass  # what reads the file says what is wrong with it
    return {}


def stored_names(path: Path) -> list[str]:
    """The names of the arrays in a file; of one that torch saved, all texts in its pickle, of which nothing is run.

    Empty if they cannot be read.
    """
    if path.suffix not in (".pt", ".pth", ".bin", ".ckpt"):
        return [*stored_arrays(path)]
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [one for one in archive.infolist() if one.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
                return []
            texts = [text for _, text, _ in pickletools.genops(archive.read(pickles[0]))]
    except DAMAGED:
        return []  # what reads the file says what is wrong with it
    return [text for text in texts if isinstance(text, str) and not _OF_STORAGE.fullmatch(text)]


def _npy(path: Path) -> Stored:
    with path.open("rb") as file:
        return _array_header(file)


def _array_header(file: IO[bytes]) -> Stored:
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("what it holds would have to be unpickled")
    return Stored(shape, {"i": "int", "u": "int", "f": "float"}.get(dtype.kind, "other"))


def _npz(path: Path) -> dict[str, Stored]:
    with zipfile.ZipFile(path) as archive:
        found = {}
        for name in archive.namelist():
            with archive.open(name) as file:
                found[name.removesuffix(".npy")] = _array_header(file)
    return found


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
