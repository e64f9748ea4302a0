"""The run directory: what a long measurement leaves on the disk, and how it goes on after being killed.

    manifest.json                            what is measured, with what; written once, when the run is created
    shards/<name>.<sha256>.safetensors       finished arrays; the name carries the hash of the content
    anything else                            tables and figures, written by `write_text` and `write_bytes`
    .lock                                    held by the one process that works here

Every file is written beside its place, synced, and renamed into it: a process killed at any moment leaves whole files
and perhaps one unfinished `.<name>.partial`, which the next process removes. As the hash stands in a shard's file name,
one rename publishes both. This module knows nothing of models or directions.
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
from importlib import metadata, resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import safetensors.numpy
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from tiltmeter.errors import TiltmeterError

FORMAT = 1
"""Version of the directory's layout, kept in the manifest."""

MANIFEST, LOCK, SHARDS, PARTIAL = "manifest.json", ".lock", "shards", ".partial"

CHANGES_NUMBERS = ("tiltmeter", "torch", "transformers", "numpy", "scipy")
"""Packages whose version may change a result's last digits."""

_ABSENT = object()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run directory that this process holds. Comes from `open_run`, and is used inside its `with` block only."""

    path: Path

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays saved under `name`, bit for bit, or None where there are none.

        A damaged file is removed, with a warning in the log, and counts as none: its arrays are computed again.

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
        """Store arrays of any shape under `name` (letters, digits, `-`, `_`), in place of those stored before.

        Once it returns they outlive this process. A full disk leaves everything stored earlier as it was.

        Raises:
            TiltmeterError: the name or an array's type is not allowed, or the disk refuses.
        """
        earlier = self._files(name)
        try:
            # safetensors writes the memory as it lies, so a transposed or strided view must be laid out in order first.
            data = safetensors.numpy.save({key: np.asarray(array, order="C") for key, array in arrays.items()})
        except SafetensorError as error:
            raise TiltmeterError(f"{name} cannot be stored: {error}; give arrays of numbers or booleans.") from error
        file = self.path / SHARDS / _shard_name(name, data)
        _write(file, data)
        _unlink([other for other in earlier if other != file])

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file (UTF-8) as `write_bytes` does."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file, at once or not at all, at `name` below the run (`tables/summary.csv`); returns its path.

        Raises:
            TiltmeterError: the name leads out of the run or to one of its own files, or the disk refuses.
        """
        file = self._own(name)
        _write(file, data)
        return file

    def remove(self, name: str) -> None:
        """Remove a file that `write_bytes` wrote, if it is there.

        Raises:
            TiltmeterError: as of `write_bytes`.
        """
        _unlink([self._own(name)])

    def _own(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0] in {"/", MANIFEST, LOCK, SHARDS}:
            raise TiltmeterError(f"{name!r} is no name for a file of a run; give a relative path, outside {SHARDS}/.")
        return self.path.joinpath(*parts)

    def _files(self, name: str) -> list[Path]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise TiltmeterError(f"{name!r} cannot name a shard; use letters, digits, '-' and '_' only.")
        return sorted((self.path / SHARDS).glob(f"{name}.*.safetensors"))


@contextmanager
def open_run(path: str | Path, identity: Mapping[str, Any], record: Callable[[], Mapping[str, Any]]) -> Iterator[Run]:
    """Create the run directory `path`, or go on with it, and hold it until the `with` block ends.

    Args:
        path: where; `~` is the home directory. Missing folders are made.
        identity: all that decides the numbers (configuration, hashes of model, tokens and code, versions), as JSON can
            write it. A run goes on only where this is equal; the order of keys, and tuple or list, do not matter.
        record: gives facts kept for the reader alone; called when the run is created, not when it goes on.

    Raises:
        TiltmeterError: another process holds the directory; it is a run of another configuration, or holds files
            and is no run, or is no directory; the disk refuses; identity or record is not JSON.
    """
    identity = _plain("identity", identity)
    with _disk(path):
        path = Path(path).expanduser().absolute()
        _refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
    lock = _locked(path)
    try:
        _remove(sorted(path.rglob(f".*{PARTIAL}")), "was not finished")
        if (path / MANIFEST).exists():
            found = _changes(path, identity)
            if found and any(path.rglob(f"{SHARDS}/*.safetensors")):  # its own, or those of a run inside it
                raise TiltmeterError(
                    f"{path} is a run of another configuration ({found}); choose another directory (--out) or repeat "
                    "the old configuration."
                )
        if not (path / MANIFEST).exists() or found:  # a run that has measured nothing may begin again as another
            now = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = {"format": FORMAT, "identity": identity, "record": _plain("record", record()), "created": now}
            _write(path / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
        yield Run(path)
    finally:
        lock.release()


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return the manifest of the run at `path`: `format`, `identity`, `record`, and `created` (ISO 8601, UTC).

    Raises:
        TiltmeterError: there is no run at `path`, or its manifest is damaged or of another format.
    """
    with _disk(path):
        file = Path(path).expanduser() / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except OSError as error:
        reason = f"it has no {MANIFEST} that can be read ({error.strerror})"
        raise TiltmeterError(f"{path} is not a run: {reason}; give a run's directory.") from error
    except (ValueError, RecursionError) as error:
        raise TiltmeterError(f"{file} is damaged ({error}); choose another directory, or remove this one.") from error
    known = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    if not known or not all(isinstance(manifest.get(part), dict) for part in ("identity", "record")):
        raise TiltmeterError(f"{file} is not the manifest of a run of format {FORMAT}; choose another directory.")
    return manifest


def code_sha256(root: Path | None = None) -> str:
    """Hex SHA-256 of the names and bytes of all `*.py` files below `root` (default: the whole package tiltmeter)."""
    root = root or Path(str(resources.files("tiltmeter")))
    total = hashlib.sha256()
    for name, file in sorted((file.relative_to(root).as_posix(), file) for file in root.rglob("*.py")):
        # Hashes of fixed length, so that no byte can move between a name and a content unseen.
        total.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def versions(packages: Sequence[str] = CHANGES_NUMBERS) -> dict[str, str]:
    """Versions of Python and of packages, by default those that may change a number. Imports none of them."""
    found = {"python": platform.python_version(), **dict.fromkeys(packages, "not installed")}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


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


def _refuse_foreign(path: Path) -> None:
    # Before the lock, because the lock itself would leave a file in someone else's directory.
    entries = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if MANIFEST in entries:
        read_manifest(path)
    elif entries - {LOCK, _partial(Path(MANIFEST)).name}:
        raise TiltmeterError(
            f"{path} is not empty and not a run (no {MANIFEST}); choose a new or empty directory, or remove this one."
        )


def _locked(path: Path) -> FileLock:
    # The kernel's lock: it ends with the process, however that ends.
    lock = FileLock(path / LOCK, timeout=0)
    with _disk(path):
        try:
            lock.acquire()
        except Timeout:
            reason = "is in use by another process"
            raise TiltmeterError(f"{path} {reason}; let it end, or choose another directory.") from None
    return lock


def _changes(path: Path, identity: dict[str, Any]) -> str:
    """What differs from the identity in the manifest, in words; empty where nothing does."""
    found = list(_differences(read_manifest(path)["identity"], identity))
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    return "; ".join(found[:3] + more)


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**new, **old}:
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{at}.{key}" if at else key)
    elif _shown(old) != _shown(new):
        yield f"{at} is {_shorten(_shown(old))} there, {_shorten(_shown(new))} here"


def _shown(value: Any) -> str:
    # Compared as text: in Python True == 1 and 0.0 == -0.0, and they do not configure the same run.
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
    # Where the system cannot sync a folder, the file is in place all the same: only a power cut could undo the rename.
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
        advice = "make room or permit it, or choose another directory"
        raise TiltmeterError(f"{path} cannot be used: {reason}; {advice}.") from error
