"""Paths given by users."""

from __future__ import annotations

import os
from pathlib import Path

from tiltmeter.errors import TiltmeterError


def user_path(text: str | Path) -> Path:
    """Expand `~` and `~user`. The path need not exist.

    Raises:
        TiltmeterError: it is no path; no such user, an invalid file name, or no permission to look it up.
    """
    if not isinstance(text, str | os.PathLike):
        raise TiltmeterError(f"A path was expected, and this is of type {type(text).__name__}; give a folder or file.")
    try:
        path = Path(text).expanduser()
        path.exists()
        str(path).encode()  # the manifest and the results name it
    except (OSError, RuntimeError, ValueError) as error:  # no such home directory; a null byte
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise TiltmeterError(f"{str(text)!r} cannot be looked up: {reason}; check the path.") from None
    return path
