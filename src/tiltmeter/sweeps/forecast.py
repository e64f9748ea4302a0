"""What a run would take: a `Forecast`, and how it is put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tiltmeter.models.clean_run import PERTURBED_RUNS, Way

MUCH = 1 / 3
"""Part of the time from which on statistics are said to take long."""


@dataclass(frozen=True)
class Forecast:
    """What a run would measure, exactly, and what it would take, estimated from a few batches.

    Where several sites are measured, counts are sums over sites, except `sequences` and `statistics_sequences`.
    """

    sites: tuple[str, ...]
    sequences: int
    """Sequences to measure; with `until_ci`, at most."""
    sequence_length: int
    perturbed_positions: int
    """Positions of a sequence that are perturbed."""
    directions: int
    saes: int
    points: float
    """Points of the path along each direction; of crossings, the mean number that a search measured in the trial."""
    perturbed_tokens: int
    """Sequences × perturbed positions × directions × points; those of a comparison's searches are added."""
    searches: int
    """Budgets of a comparison, whose lengths are searched."""
    statistics_sequences: int
    statistics_passes: int
    clean_passes: int
    perturbed_passes: int
    """Forward passes, each of a batch; of crossings, an estimate."""
    ways: tuple[Way, ...]
    """How perturbed runs are made."""
    statistics_seconds: float
    measuring_seconds: float
    other_seconds: float
    """Of hashes, self-checks, compiling kernels, and tables."""
    seconds_left: float
    """Without what is stored already."""
    memory: int | None
    """Peak memory of the process in bytes; None where the system does not say."""
    device_memory: int | None
    """Peak memory on the GPU in bytes; None for a model on the CPU."""
    disk: int
    """Size of the run directory in bytes, without figures."""
    shards: int
    shards_done: int
    """Shards that the run directory holds already."""
    tried_statistics: int
    tried_sequences: int
    """On so many sequences time and memory were measured."""
    tried_sites: int
    until_ci: bool
    """Whether the run may stop earlier."""

    @property
    def seconds(self) -> float:
        """Time of the whole run, after the model is loaded."""
        return self.statistics_seconds + self.measuring_seconds + self.other_seconds

    @property
    def statistics_share(self) -> float:
        """Part of the time that statistics take."""
        return self.statistics_seconds / self.seconds

    def to_json(self) -> dict[str, Any]:
        """All fields, and the sum of the seconds, as plain values."""
        return {**asdict(self), "seconds": self.seconds}

    def __str__(self) -> str:
        """A table of these, with remarks."""
        most = "at most " if self.until_ci else ""
        several = f" at each of {len(self.sites)} sites" if len(self.sites) > 1 else f" at {self.sites[0]}"
        rows = {
            "tokens": f"{most}{self.sequences:,} sequences of {self.sequence_length}, of which "
            f"{self.perturbed_positions:,} positions are perturbed,{several}",
            "perturbed": f"{most}{self.perturbed_tokens:,} tokens: {self._factors}",
            "passes": f"{self.statistics_passes:,} for statistics of {self.statistics_sequences:,} sequences, "
            f"{self.clean_passes:,} clean, {self.perturbed_passes:,} perturbed",
            "way": "; ".join(PERTURBED_RUNS[way] for way in self.ways),
            "time": f"{most}{duration(self.seconds)} after loading the model: statistics "
            f"{duration(self.statistics_seconds)}, measuring {duration(self.measuring_seconds)}, other "
            f"{duration(self.other_seconds)}",
            "memory": self._memory,
            "disk": f"{size(self.disk)}, without figures",
            "stored": f"{self.shards_done} of {self.shards} shards are done; {duration(self.seconds_left)} are left"
            if self.shards_done
            else "",
        }
        lines = [f"{name:<11}{text}" for name, text in rows.items() if text]
        return "\n".join([*lines, *self.remarks])

    @property
    def remarks(self) -> Sequence[str]:
        """What these numbers rest on, and what would lower them."""
        sites = f" at {self.tried_sites} of {len(self.sites)} sites" if self.tried_sites < len(self.sites) else ""
        found = [
            "Time, memory and disk are estimates, from the statistics of "
            f"{self.tried_statistics} sequences and batches of {self.tried_sequences}{sites}."
        ]
        if self.statistics_share > MUCH and self.statistics_sequences > self.tried_statistics:
            found.append(
                f"Statistics take {self.statistics_share:.0%} of the time; fewer sequences serve them with "
                "--statistics-sequences."
            )
        return found

    @property
    def _factors(self) -> str:
        points = f"{self.points:,.1f}".removesuffix(".0")
        of_saes = f" (with {self.saes} SAEs)" if self.saes else ""
        searched = f"; and {self.searches} searches for budgets" if self.searches else ""
        return f"{self.directions:,} directions{of_saes}, {points} points along each{searched}"

    @property
    def _memory(self) -> str:
        parts = [] if self.memory is None else [f"{size(self.memory)} at the peak"]
        parts += [] if self.device_memory is None else [f"{size(self.device_memory)} on the device"]
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in two digits or so: `8 s`, `3.2 min`."""
    for unit, least in (("h", 3600), ("min", 60)):
        if seconds >= least:
            return f"{seconds / least:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def size(number: int) -> str:
    """Bytes in powers of ten: `3.4 MB`."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= least:
            return f"{number / least:.3g} {unit}"
    return f"{number:.0f} bytes"
