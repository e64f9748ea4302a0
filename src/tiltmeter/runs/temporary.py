"""A directory for a run that is not to be kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tiltmeter.runs.user_paths import user_path


@contextmanager
def kept_or_temporary(out: str | Path | None) -> Iterator[Path]:
    """`out` itself; or, if it is None, a temporary directory that is deleted afterwards, also after an interruption.

    Raises:
        TiltmeterError: `out` is no path.
    """
    if out is not None:
        yield user_path(out)
        return
    with TemporaryDirectory(prefix="tiltmeter-") as folder:
        yield Path(folder)
