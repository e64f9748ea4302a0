"""Progress bars with the time left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

NOTEBOOK = "ipykernel.zmqshell"
"""The module that is there in kernels of Jupyter, by which tqdm knows them, too; their output is no terminal."""


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """Iterate over `items` with a progress bar, which appears after half a second."""
    return tqdm(items, desc=what, leave=False, delay=0.5, mininterval=_interval(), disable=_hidden())


def progress_bar(total: int, done: int, what: str) -> tqdm:
    """A progress bar to be updated by hand, at `done` of `total` steps."""
    return tqdm(total=total, initial=done, desc=what, leave=False, mininterval=_interval(), disable=_hidden())


class Steps:
    """Counts the steps of a measurement on a progress bar, with the time left by the mean speed of those taken here."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def take(self, number: int) -> None:
        """So many steps were taken."""
        self._bar.update(number)

    def skip(self, number: int) -> None:
        """So many were taken earlier, which took no time now."""
        self._bar.initial += number
        self._bar.update(number)


@contextmanager
def counted_steps(total: int, what: str) -> Iterator[Steps]:
    """Show a progress bar of so many steps, which appears after half a second, until the block ends."""
    with tqdm(
        total=total,
        desc=what,
        leave=False,
        delay=0.5,
        mininterval=_interval(),
        disable=_hidden(),
        smoothing=0,  # steps differ in cost: their mean says more of the time left than the last ones
        unit_scale=True,
    ) as bar:
        yield Steps(bar)


def _hidden() -> bool:
    """Whether progress is not shown: where warnings are not, either (`--quiet`)."""
    return not logging.getLogger("tiltmeter").isEnabledFor(logging.WARNING)


def _interval() -> float:
    """Seconds between updates: few if the output is neither a terminal nor a notebook, so that logs stay short."""
    return 0.2 if sys.stderr.isatty() or NOTEBOOK in sys.modules else 10.0
