"""A directory for a run that is not to be kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def kept_or_temporary(out: str | Path | None) -> Iterator[str | Path]:
    """`out` itself; or, if it is None, a temporary directory that is deleted afterwards, also after an interruption."""
    if out is not None:
        yield out
        return
    with TemporaryDirectory(prefix="tiltmeter-") as folder:
        yield folder
