"""Two things timed in turn, so that whatever else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Pairs:
    """Seconds of one and of the other, pair by pair, by some clock."""

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


class Clocks(NamedTuple):
    """The same by two clocks."""

    wall: Pairs
    processor: Pairs
    """Of all threads of this process, which other processes do not slow by taking turns with it."""


def timed(ours: Callable[[], object], theirs: Callable[[], object], pairs: int, steps: int) -> Clocks:
    """Time `steps` calls of one and of the other, in turn, `pairs` times; every second pair begins with the other.

    One block of each runs before, and is not counted. Seconds are those of one call.
    """
    blocks: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for pair in range(-1, pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            took = _block((ours, theirs)[which], steps)
            if pair >= 0:
                blocks[which].append(took)
    wall, processor = (Pairs(*(tuple(took[clock] for took in side) for side in blocks)) for clock in (0, 1))
    return Clocks(wall, processor)


def _block(call: Callable[[], object], times: int) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(times):
        call()
    return (time.perf_counter() - wall) / times, (time.process_time() - processor) / times
