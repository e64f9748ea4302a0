"""The exception for wrong input, and what its sentence says of a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TiltmeterError(Exception):
    """Wrong input, explained in one sentence: what was given, what was expected, what to do.

    The command line prints the sentence and exits with status 2, without a traceback.
    """


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The nearest of the names, as ` (did you mean NAME?)`; empty if none is near."""
    lower = {one.lower(): one for one in names}
    found = difflib.get_close_matches(name.lower(), list(lower), n=1)
    return f" (did you mean {lower[found[0]]}?)" if found else ""
