"""User vectors, for directions named `along:FILE`: steering vectors, probes, or anything of the site's width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import long_name
from tiltmeter.perturb.names import ALONG, DirectionName
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes.formats.hook_names import site_name
from tiltmeter.saes.formats.tensors import SUFFIXES as OF_WEIGHTS
from tiltmeter.saes.formats.tensors import read_tensors

SUFFIXES = (".npy", ".gguf", *sorted(OF_WEIGHTS))
"""Kinds of files that vectors are read from."""

_LAYER = re.compile(r"(?P<before>(?:(?:.*\.)?(?:direction|layers?|blocks|h)[._]?)?)\d+(?P<after>(?:\D.*)?)")
"""The name of a vector of one layer, in a file that has one for each."""


_DIRECTION = re.compile(r"direction\.(\d+)")
"""repeng's and llama.cpp's name of what is added to a block's output."""

_POST = re.compile(r"blocks\.(\d+)\.hook_resid_post")

ALL = "*"
"""After a #, all vectors of a file, those of other layers too."""


def load_vectors(name: DirectionName, site: str = "") -> dict[DirectionName, Tensor]:
    """Load the vectors of a file, in float64, keyed by their direction names.

    A `.npy` file holds one vector or a matrix of rows; a `.safetensors`, `.npz` or `.pt` file (read as weights only)
    any number of either; a `.gguf` control vector of llama.cpp or repeng one a layer. `along:FILE` means all of them,
    `along:steer.npy#3` the fourth row of a matrix, `along:probes.safetensors#sex` the vector of that name and
    `along:probes.safetensors#sex.3` the fourth row of the matrix of that name. One vector alone in a `.npy` file is
    called `along:steer.npy`. Of a file with a vector a layer, the one of the site is taken, where the names tell which
    it is: `direction.6` is added to the output of block 6; `blocks.6.hook_resid_post` and `model.layers.6` are names of
    sites. Otherwise one must be named, `along:steer.gguf#direction.6`, or all, `along:steer.gguf#*`.

    Args:
        name: the direction `along:FILE`.
        site: where it is perturbed, by any of its names; empty if that is not known.

    Raises:
        TiltmeterError: the file does not exist, has another format, has no vector of that name or one a layer and none
            is named, or contains NaN, an infinity or a zero vector.
    """
    path, chosen = _split(name.argument or "")
    if not path.is_file():
        raise TiltmeterError(f"{path} is not a file; along:FILE needs a file of vectors: {', '.join(SUFFIXES)}.")
    vectors: dict[str, Tensor] = {}
    stored = _read(path)
    if not chosen and _has_layers(sorted(stored)):
        chosen = _own_layer(sorted(stored), path, site)
    for key, tensor in sorted(stored.items()):
        rows = _rows(f"{ALONG}:{path.name}", key, tensor)
        if twice := sorted(rows.keys() & vectors.keys()):
            raise TiltmeterError(f"{path} has two vectors that would both be called {twice[0]}; rename one of them.")
        vectors |= rows
    vectors = _choose(vectors, path, chosen)
    for direction, vector in vectors.items():
        check_vector(direction, vector)
    return {DirectionName.parse(direction): vector for direction, vector in vectors.items()}


def _split(name: str) -> tuple[Path, str]:
    """Split into a file and which of its vectors (empty for all), at the last # before which a file is named.

    The name of a file may itself contain #.
    """
    before, chosen = name, ""
    while not (path := user_path(before)).is_file() and "#" in before:
        before, _, last = before.rpartition("#")
        chosen = f"{last}#{chosen}" if chosen else last
    if path.is_file():
        return path, chosen
    file, _, chosen = name.partition("#")
    return user_path(file), chosen


def _choose(vectors: dict[str, Tensor], path: Path, chosen: str) -> dict[str, Tensor]:
    name = f"{ALONG}:{path.name}#{chosen}"
    if not vectors:
        raise TiltmeterError(f"{path} contains no vectors; give a file with at least one.")
    if chosen in ("", ALL):
        return vectors
    if name in vectors:
        return {name: vectors[name]}
    some = ", ".join([*vectors][:5]) + (", ..." if len(vectors) > 5 else "")
    raise TiltmeterError(f"{path} has no vector {chosen!r}; it has {some}.")


def _has_layers(keys: Sequence[str]) -> bool:
    """Whether the names differ in a layer's number alone, so that the vectors belong to different sites."""
    matches = [_LAYER.fullmatch(key) for key in keys]
    parts = {(match["before"], match["after"]) if match else None for match in matches}
    return len(keys) > 1 and len(parts) == 1 and None not in parts


def _own_layer(keys: Sequence[str], path: Path, site: str) -> str:
    """The name of the vector that belongs to a site.

    Raises:
        TiltmeterError: the names do not tell, or none does.
    """
    own = [key for key in keys if site and _place(_DIRECTION.sub(r"layers.\1", key)) == _place(long_name(site))]
    if len(own) == 1:
        return own[0]
    where = f"; none is known to belong to {site}" if site else ""
    raise TiltmeterError(
        f"{path} has a vector for each of {len(keys)} layers, which do not belong to one site{where}; name the one of "
        f"this site, as {ALONG}:{path.name}#{keys[0]}, or all of them, as {ALONG}:{path.name}#{ALL}."
    )


def _place(name: str) -> str:
    """A site's name, of the stream after a block by that of the stream before the next."""
    known = site_name(name)
    match = _POST.fullmatch(known)
    return f"blocks.{int(match[1]) + 1}.hook_resid_pre" if match else known


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".npy":
            return {"": torch.from_numpy(np.load(path, allow_pickle=False))}
        if path.suffix == ".gguf":
            return _control_vector(path)
        if path.suffix in SUFFIXES:
            return read_tensors(path, str(path)).tensors
    except (ValueError, OSError, EOFError, TypeError, MemoryError) as error:
        raise TiltmeterError(
            f"{path} could not be read as {path.suffix} without unpickling it: {str(error).rstrip('.')}."
        ) from None
    raise TiltmeterError(
        f"{path} is a {path.suffix or 'nameless'} file; vectors are read from {', '.join(SUFFIXES)} files, and no "
        "code in them is run."
    )


def _control_vector(path: Path) -> dict[str, Tensor]:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise TiltmeterError(
            f"{path} is a GGUF file; the 'gguf' package is needed: pip install 'tiltmeter[gguf]'."
        ) from None
    return {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in GGUFReader(path).tensors}


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


def check_vector(direction: str, vector: Tensor) -> None:
    """Check that a user's vector has a direction.

    Raises:
        TiltmeterError: it is zero or not finite.
    """
    if not bool(torch.isfinite(vector).all()):
        raise TiltmeterError(f"The vector {direction} contains NaN or an infinity; give finite numbers.")
    if not bool(vector.any()):
        raise TiltmeterError(f"The vector {direction} is zero, which has no direction; leave it out.")
