"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

from tiltmeter.errors import TiltmeterError


def user_path(text: str | Path) -> Path:
    """The path that `text` means, with `~` and `~user` expanded. Nothing need be there.

    Raises:
        TiltmeterError: there is no such user, or no file can have that name, or it may not be looked up.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no such home; a zero byte
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise TiltmeterError(f"{str(text)!r} cannot be looked up: {reason}; check the path.") from None
    return path
