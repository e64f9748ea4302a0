"""The run directory: where a long measurement is stored, and how it resumes after being killed.

    manifest.json                            what is measured, from what; written once, when the run is created
    shards/<name>.<sha256>.safetensors       finished arrays; the name carries the hash of the content
    anything else                            tables and figures, written by `write_text` and `write_bytes`
    .lock                                    held by the one process that writes here

Every file is written to a temporary name, synced, and renamed: a process killed at any moment leaves complete files and
perhaps one `.<name>.partial`, which the next process removes. The hash is part of a shard's file name, so that a single
rename publishes both. This module knows nothing about models or directions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata, resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import safetensors.numpy
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.user_paths import user_path

FORMAT = 1
"""Version of the directory layout, stored in the manifest."""

MANIFEST, LOCK, SHARDS, PARTIAL = "manifest.json", ".lock", "shards", ".partial"

CHANGES_NUMBERS = ("tiltmeter", "torch", "transformers", "numpy", "scipy")
"""Packages whose version may change the last digits of a result."""

_ABSENT = object()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run directory locked by this process; from `open_run`, valid inside its `with` block."""

    path: Path

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays saved under `name`, bit for bit, or None if there are none.

        A damaged file is removed with a warning and counts as absent, so that its arrays are computed again.

        Raises:
            TiltmeterError: the name is not allowed, or the file cannot be read or removed.
        """
        files = self._files(name)
        if len(files) == 1:
            with _disk(files[0]):
                data = files[0].read_bytes()
            if files[0].name == _shard_name(name, data):
                return safetensors.numpy.load(data)
        _remove(files, "is damaged, or one of two")
        return None

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays of any shape under `name` (letters, digits, `-`, `_`), replacing earlier ones.

        On return they are on disk. If the disk is full, everything stored earlier is left intact.

        Raises:
            TiltmeterError: the name or an array's type is not allowed, or writing fails.
        """
        earlier, data = self._files(name), to_safetensors(name, arrays)
        file = self.path / SHARDS / _shard_name(name, data)
        _write(file, data)
        _unlink([other for other in earlier if other != file])

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file (UTF-8) as `write_bytes` does."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file atomically at `name` below the run directory (`tables/summary.csv`); return its path.

        Raises:
            TiltmeterError: the name is outside the run directory or one of its own files, or writing fails.
        """
        file = self._own(name)
        _write(file, data)
        return file

    def remove(self, name: str) -> None:
        """Remove a file that `write_bytes` wrote, if it is there.

        Raises:
            TiltmeterError: as in `write_bytes`.
        """
        _unlink([self._own(name)])

    def _own(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0] in {"/", MANIFEST, LOCK, SHARDS}:
            raise TiltmeterError(
                f"{name!r} is not a name for a file of a run; give a relative path, outside {SHARDS}/."
            )
        return self.path.joinpath(*parts)

    def _files(self, name: str) -> list[Path]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise TiltmeterError(f"{name!r} cannot name a shard; use letters, digits, '-' and '_' only.")
        return sorted((self.path / SHARDS).glob(f"{name}.*.safetensors"))


@contextmanager
def open_run(path: str | Path, identity: Mapping[str, Any], record: Callable[[], Mapping[str, Any]]) -> Iterator[Run]:
    """Create or resume the run directory `path`, and lock it until the `with` block ends.

    If the block, or `record`, raises a `TiltmeterError` before anything is stored, the folders that were created are
    removed.

    Args:
        path: the directory; `~` is expanded, and missing folders are created.
        identity: everything that determines the numbers (configuration, hashes of model, tokens and code, versions),
            as JSON values. A run resumes only if this is equal, up to the order of keys and tuple or list.
        record: returns facts for the reader only; called when the run is created, not when it resumes.

    Raises:
        TiltmeterError: another process holds the directory; it is a run of another configuration, or not empty and
            not a run, or not a directory; writing fails; identity or record is not JSON.
    """
    identity = _plain("identity", identity)
    with _disk(path):
        path = Path(path).expanduser().absolute()
    refuse_foreign(path)
    with _disk(path):
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    lock = _locked(path)
    try:
        _remove(sorted(path.rglob(f".*{PARTIAL}")), "was not finished")
        if not (path / MANIFEST).exists() or _changed(path, identity):
            _write(path / MANIFEST, manifest_bytes(identity, record()))
        yield Run(path)
    except TiltmeterError:
        _remove_if_unused(new)
        raise
    finally:
        lock.release()


def _remove_if_unused(new: Sequence[Path]) -> None:
    """Remove the folders that a refused run made, the innermost first, as far as nothing else is in them."""
    if not new or {entry.name for entry in new[0].iterdir()} - {MANIFEST, LOCK}:
        return
    with suppress(OSError):  # some systems keep a locked file, or another process has begun to write
        for name in (MANIFEST, LOCK):
            (new[0] / name).unlink(missing_ok=True)
        for folder in new:
            folder.rmdir()


def refuse_other(path: str | Path, known: Mapping[str, Any]) -> None:
    """Check a directory against that part of an identity which is known before the rest is computed.

    Args:
        path: the directory; it need not exist.
        known: entries of an identity; of an entry that is a mapping, some keys.

    Raises:
        TiltmeterError: it holds results of a run in which one of these is different, or `refuse_foreign` raises.
    """
    refuse_foreign(path)
    folder = Path(path).expanduser()
    if (folder / MANIFEST).exists():
        there = read_manifest(folder)["identity"]
        merged = {
            key: {**there[key], **one} if _both_mappings(there.get(key), one) else one for key, one in known.items()
        }
        _changed(folder, _plain("identity", {**there, **merged}))


def _both_mappings(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(other, Mapping)


def stored_names(path: str | Path, identity: Mapping[str, Any]) -> set[str]:
    """The names of the arrays that are stored in a run that this identity would resume; nothing is changed or locked.

    Raises:
        TiltmeterError: as `open_run`, except that the run may be in use.
    """
    refuse_foreign(path)
    folder = Path(path).expanduser()
    if not (folder / MANIFEST).exists() or _changed(folder, _plain("identity", identity)):
        return set()
    return shard_names(folder)


def shard_names(folder: Path) -> set[str]:
    """The names of the arrays that are stored in a folder, whatever run it is of."""
    return {file.name.partition(".")[0] for file in (folder / SHARDS).glob("*.safetensors")}


def manifest_bytes(identity: Mapping[str, Any], record: Mapping[str, Any]) -> bytes:
    """The manifest of a run that is created now.

    Raises:
        TiltmeterError: identity or record is not JSON.
    """
    facts = {"identity": _plain("identity", identity), "record": _plain("record", record)}
    manifest = {"format": FORMAT, **facts, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    return (json.dumps(manifest, indent=2) + "\n").encode()


def to_safetensors(name: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file of these arrays, of any shape.

    Raises:
        TiltmeterError: an array's type is not allowed.
    """
    try:
        # safetensors writes raw memory, so a transposed or strided view must be made contiguous first.
        return safetensors.numpy.save({key: np.asarray(array, order="C") for key, array in arrays.items()})
    except SafetensorError as error:
        raise TiltmeterError(f"{name} cannot be stored: {error}; give arrays of numbers or booleans.") from error


def refuse_foreign(path: str | Path) -> None:
    """Check that a run could be created or resumed in this directory, as far as that is seen without changing it.

    Raises:
        TiltmeterError: it is no directory, or not empty and not a run, or its manifest is damaged.
    """
    # Before the lock, because the lock itself would leave a file in someone else's directory.
    with _disk(path):
        folder = Path(path).expanduser()
        entries = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if MANIFEST in entries:
        read_manifest(folder)
    elif entries - {LOCK, _partial(Path(MANIFEST)).name}:
        raise TiltmeterError(
            f"{path} is not empty and not a run (no {MANIFEST}); choose a new or empty directory, or remove this one."
        )


def has_results(path: Path) -> bool:
    """Whether anything is stored in a run: its own shards, or those of a nested run."""
    return any(path.rglob(f"{SHARDS}/*.safetensors"))


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return the manifest of the run at `path`: `format`, `identity`, `record`, and `created` (ISO 8601, UTC).

    Raises:
        TiltmeterError: there is no run at `path`, or its manifest is damaged or of another format.
    """
    file = user_path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except OSError as error:
        if inside := sorted(one.parent.name for one in file.parent.glob(f"*/{MANIFEST}")):
            raise TiltmeterError(f"{path} is a folder of runs; give one of them, such as {inside[0]}.") from error
        reason = f"it has no {MANIFEST} that can be read ({error.strerror})"
        raise TiltmeterError(f"{path} is not a run: {reason}; give a run's directory.") from error
    except (ValueError, RecursionError) as error:
        raise TiltmeterError(f"{file} is damaged ({error}); choose another directory, or remove this one.") from error
    known = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    if not known or not all(isinstance(manifest.get(part), dict) for part in ("identity", "record")):
        raise TiltmeterError(f"{file} is not the manifest of a run of format {FORMAT}; choose another directory.")
    return manifest


def code_sha256(root: Path | None = None) -> str:
    """Hex SHA-256 of the names and bytes of all `*.py` files below `root`.

    Default: the whole package tiltmeter, read once in a process, as it is imported once.
    """
    return _sources_sha256(root) if root else _package_sha256()


@cache
def _package_sha256() -> str:
    return _sources_sha256(Path(str(resources.files("tiltmeter"))))


def _sources_sha256(root: Path) -> str:
    total = hashlib.sha256()
    for name, file in sorted((file.relative_to(root).as_posix(), file) for file in root.rglob("*.py")):
        # Hashing each part first keeps the boundary between name and content unambiguous.
        total.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def versions(packages: Sequence[str] = CHANGES_NUMBERS) -> dict[str, str]:
    """Versions of Python and of packages, by default those that may change a number. Imports none of them."""
    return {"python": platform.python_version(), **{package: _version(package) for package in packages}}


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, str]:
    """Name the operating system, processor and number of cores, for a run's record."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1] if found else cpu
    return {"platform": platform.platform(), "cpu": cpu, "cores": str(os.cpu_count())}


def _plain(what: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(facts), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TiltmeterError(f"The run's {what} cannot be written as JSON: {error}; use plain values.") from error


def _locked(path: Path) -> FileLock:
    # A kernel lock, which is released however the process ends.
    lock = FileLock(path / LOCK, timeout=0)
    with _disk(path):
        try:
            lock.acquire()
        except Timeout:
            reason = "is in use by another process"
            raise TiltmeterError(f"{path} {reason}; wait for it, or choose another directory.") from None
    return lock


def _changed(path: Path, identity: dict[str, Any]) -> bool:
    """Whether a run without results is of another identity, and may be restarted as this one.

    Raises:
        TiltmeterError: a run with results is of another identity.
    """
    found = list(_differences(read_manifest(path)["identity"], identity))
    if not found or not has_results(path):
        return bool(found)
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    raise TiltmeterError(
        f"{path} is a run of another configuration ({'; '.join(found[:3] + more)}); choose another directory (--out) "
        "or repeat the old configuration."
    )


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**new, **old}:
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{at}.{key}" if at else key)
    elif _shown(old) != _shown(new):
        yield f"{at} is {_shorten(_shown(old))} there, {_shorten(_shown(new))} here"


def _shown(value: Any) -> str:
    # Compared as text: in Python True == 1 and 0.0 == -0.0, but they are different configurations.
    return "absent" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"


def _shard_name(name: str, data: bytes) -> str:
    return f"{name}.{hashlib.sha256(data).hexdigest()[:16]}.safetensors"


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}{PARTIAL}")


def _remove(files: list[Path], why: str) -> None:
    for file in files:
        _log.warning("%s %s; it is removed", file, why)
    _unlink(files)


def _unlink(files: list[Path]) -> None:
    for file in files:
        with _disk(file):
            file.unlink(missing_ok=True)


def _write(file: Path, data: bytes) -> None:
    partial = _partial(file)
    with _disk(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    # If the system cannot sync a directory, the file is still in place: only a power cut could undo the rename.
    with suppress(OSError), ExitStack() as stack:
        folder = os.open(file.parent, os.O_RDONLY)
        stack.callback(os.close, folder)
        os.fsync(folder)


@contextmanager
def _disk(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: no such home, or no locks on this file system
        reason = getattr(error, "strerror", None) or error
        advice = "free space or fix its permissions, or choose another directory"
        if isinstance(error, NotADirectoryError | FileExistsError):
            advice = "a file is in the way: choose another directory"
        raise TiltmeterError(f"{path} cannot be used: {reason}; {advice}.") from error
