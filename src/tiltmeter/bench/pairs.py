"""Two things timed in turn, so that whatever else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Seconds of one and of the other, pair by pair."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as long the other took, in each pair."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The middle one of the ratios."""
        return statistics.median(self.ratios)


def timed(ours: Callable[[], object], theirs: Callable[[], object], pairs: int, steps: int) -> Pairs:
    """Time `steps` calls of one and of the other, in turn, `pairs` times; every second pair begins with the other.

    One block of each runs before, and is not counted.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(-1, pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            took = _block((ours, theirs)[which], steps)
            if pair >= 0:
                seconds[which].append(took)
    return Pairs(tuple(seconds[0]), tuple(seconds[1]))


def _block(call: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times
