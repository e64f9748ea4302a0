"""Progress and time left, for work that takes longer than a breath."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """Go through `items`, showing how far it is and how long it will take; silent when done within half a second."""
    return tqdm(items, desc=what, leave=False, delay=0.5, mininterval=_interval())


def progress_bar(total: int, done: int, what: str) -> tqdm:
    """A bar for work that counts its own steps, `done` of `total` so far."""
    return tqdm(total=total, initial=done, desc=what, leave=False, mininterval=_interval())


def _interval() -> float:
    """Seconds between two drawings: a log file should not fill up."""
    return 0.2 if sys.stderr.isatty() else 10.0
