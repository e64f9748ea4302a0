"""Two functions timed alternately, so that other load on the machine affects both. Used for SAE training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Pairs:
    """Seconds per call of tiltmeter (`ours`) and of the other tool (`theirs`), pair by pair, by one clock."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Theirs over ours in each pair: above 1, tiltmeter is faster."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


class Clocks(NamedTuple):
    """The same calls by two clocks."""

    wall: Pairs
    processor: Pairs
    """Processor time of all threads of this process. It does not grow while other processes run instead of this one."""


def timed(ours: Callable[[], object], theirs: Callable[[], object], pairs: int, steps: int) -> Clocks:
    """Time blocks of `steps` calls of both functions, `pairs` times; the order alternates from pair to pair.

    One block of each runs first as a warm-up and is not counted.

    Returns:
        Seconds per call.
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
