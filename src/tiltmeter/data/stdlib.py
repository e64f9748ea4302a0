"""The text that nano is trained and measured on: the source code of the running Python's standard library.

tiltmeter ships no text. Every user has these files, so sequences are made from them on demand.

1. `module_files` lists the modules of `Lib`, outside site-packages, without generated tables.
2. `side` assigns each module to the training or the held-out side by a hash of its name, so the split is the same in
   every Python version and on every machine.
3. `read_source` reads a module as text.

This file imports only the standard library, so that any interpreter can run it.
"""

from __future__ import annotations

import hashlib
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Side = Literal["train", "held-out"]

TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
"""Folders of tests. Some distributions omit them, so they are always on the training side."""

OPTIONAL_PACKAGES = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo", "venv"}
)
"""Packages that some distributions or Python versions lack. They too are always on the training side."""

GENERATED = frozenset({"encodings", "pydoc_data"})
"""Packages of generated tables (code pages, the text of `help()`): near-duplicates of each other, on neither side."""

HELD_OUT_FRACTION = 0.31
"""Fraction of the other top-level names that is held out: about a quarter of all non-test modules."""

SALT = "tiltmeter-nano-9"
"""Of eleven salts tried (looking only at sizes), the one that came nearest to a quarter."""


class Module(NamedTuple):
    """One source file of the standard library."""

    name: str
    """Dotted name, e.g. `email.message`."""
    path: Path


def library_root() -> Path:
    """The `Lib` folder of the running interpreter."""
    return Path(sysconfig.get_path("stdlib"))


def module_files(root: Path | None = None) -> list[Module]:
    """Every module of the standard library below `root` (default: the running interpreter's), ordered by name."""
    root = root or library_root()
    return sorted(_walk(root), key=lambda module: module.name)


def _walk(root: Path) -> Iterator[Module]:
    for path in _sources(root):
        parts = path.relative_to(root).with_suffix("").parts
        if any("-" in part for part in parts[:-1]) or parts[0].startswith("_sysconfigdata"):
            continue  # build configuration of this machine, not library source
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Module(name, path)


def _sources(root: Path) -> Iterator[Path]:
    """Source files. Installed packages lie in one of the folders, and may be many times as many: it is not entered."""
    for top in root.iterdir():
        if top.is_dir() and top.name not in {"site-packages", "dist-packages", *GENERATED}:
            yield from top.rglob("*.py")
        elif top.suffix == ".py":
            yield top


def is_test(name: str) -> bool:
    """Whether a module is in a package of tests."""
    return not TEST_FOLDERS.isdisjoint(name.split("."))


def side(name: str) -> Side:
    """The side that a module is on: trained on or held out.

    The hash is of the top-level name, without a leading `_py` or `_`: modules of one package are
    similar, and Python versions move code within a package (`pathlib` to `pathlib._local`) or behind an underscore
    (`datetime` to `_pydatetime`). Moved code stays on its side.
    """
    top = name.split(".")[0]
    if is_test(name) or top in OPTIONAL_PACKAGES:
        return "train"
    canonical = top.removeprefix("_py").removeprefix("_")
    digest = hashlib.sha256(f"{SALT}/{canonical}".encode()).digest()
    return "held-out" if int.from_bytes(digest[:4], "big") < HELD_OUT_FRACTION * 2**32 else "train"


def read_source(module: Module) -> str | None:
    """The module's text, decoded as Python would, or None if it cannot be read or decoded."""
    try:
        with tokenize.open(module.path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError, LookupError):
        return None  # dangling links; test files with deliberately wrong encodings


def texts(which: Side, root: Path | None = None) -> Iterator[tuple[str, str]]:
    """(name, text) of every readable module on one side, ordered by name."""
    for module in module_files(root):
        if side(module.name) == which:
            text = read_source(module)
            if text:
                yield module.name, text
