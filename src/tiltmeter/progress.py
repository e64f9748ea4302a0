"""Progress and time left, for work that takes longer than a breath."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """Go through `items`, showing how far it is and how long it will take; silent when done within half a second."""
    every = 0.2 if sys.stderr.isatty() else 10.0  # seconds; a log file should not fill up
    return tqdm(items, desc=what, leave=False, delay=0.5, mininterval=every)
