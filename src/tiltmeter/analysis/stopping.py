"""Stop when it is known: whether every mean of a sweep is known as well as was asked for, and what that took.

A mean is that of one direction, step and readout over sequences. It is known to ±2 % where half its time-uniform
interval (`tiltmeter.analysis.confidence_sequences`) is at most 2 % of it. All readouts but one are positive wherever
anything moves, so that share has a meaning however small the mean; `cos` crosses zero, and for it the share is of 1,
its greatest value. Not waited for are steps of 0, where nothing moves and what is left is rounding; `length`, which is
no readout; and curves of which no sequence was measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64

from tiltmeter.analysis.bootstrap import MeanInterval
from tiltmeter.analysis.confidence_sequences import FIRST_LOOK, sequential_mean
from tiltmeter.analysis.curves import readout_names, sequence_means

LEE2024_TOKENS = 2_000_000
"""Tokens that Lee & Heimersheim 2024 average over."""


@dataclass(frozen=True)
class Stopped:
    """How a sweep that was to stop when its means are known has ended; it travels with the curves as JSON."""

    until_ci: float
    """Half the interval that was asked for, as a share of the mean."""
    at_most: int
    """Sequences that were asked for."""
    sequences: int
    """Sequences that were measured."""
    length: int
    """Tokens of a sequence."""
    widest: float | None
    """The largest half of an interval, as a share of the mean; None where a mean has no interval."""
    of: str
    """The mean that it is of."""

    @property
    def reached(self) -> bool:
        """Whether every mean is known so well."""
        return self.widest is not None and self.widest <= self.until_ci

    @property
    def tokens(self) -> int:
        """Tokens of the sequences that were measured."""
        return self.sequences * self.length

    @property
    def sentence(self) -> str:
        """What it took, and what it saved."""
        goal = f"±{100 * self.until_ci:g} % (time-uniform 95 % intervals)"
        if not self.reached:
            return (
                f"Took all {self.at_most:,} sequences ({self.tokens:,} tokens), and not every mean is known to {goal}: "
                f"{self._lack}."
            )
        saved, more = 100 * (1 - self.sequences / self.at_most), LEE2024_TOKENS / self.tokens
        return (
            f"Stopped after {self.sequences:,} of {self.at_most:,} sequences ({self.tokens:,} tokens; {saved:.0f} % "
            f"saved), because every mean is known to {goal}. Lee & Heimersheim 2024 took 2 million tokens, "
            f"{_two_digits(more)} times as many."
        )

    @property
    def _lack(self) -> str:
        if self.widest is None:
            return f"{self.of} has no interval, which takes {FIRST_LOOK} sequences"
        # Intervals narrow with the square root, nearly
        enough = self.sequences * (self.widest / self.until_ci) ** 2
        known = f"{self.of} is known to ±{_two_digits(100 * self.widest)} %"
        return f"{known}, and the goal takes about {_two_digits(enough)} sequences"

    def to_json(self) -> str:
        """As the attribute `stopping` of curves."""
        return json.dumps(asdict(self) | {"tokens": self.tokens, "reached": self.reached})

    @classmethod
    def of_curves(cls, curves: xr.Dataset) -> Stopped | None:
        """How the sweep of these curves has ended; None where it was to measure all its sequences."""
        if "stopping" not in curves.attrs:
            return None
        stored: dict[str, Any] = json.loads(curves.attrs["stopping"])
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__})


def _two_digits(value: float) -> str:
    """`1,200`, `75` or `0.48`."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def least_known(means: MeanInterval, curves: xr.Dataset) -> tuple[float, str]:
    """The mean that is known worst: half its interval as a share of it, infinite where it has none; and its name.

    Args:
        means: with intervals, by direction, step and readout.
        curves: what the means are of; of any sequences.
    """
    readouts, steps = readout_names(curves), curves.step.values
    of_cosine = np.array([name.startswith("cos@") for name in readouts])
    waited = (means.n > 0) & (steps != 0)[:, None] & np.array([name != "length" for name in readouts])
    if not waited.any():
        return 0.0, "nothing"
    half, size = means.high - means.mean, np.where(of_cosine, 1.0, np.abs(means.mean))
    share = np.divide(half, size, out=np.where(half > 0, np.inf, half), where=size > 0)
    share = np.where(waited, np.where(np.isnan(share), np.inf, share), -np.inf)
    direction, step, readout = np.unravel_index(share.argmax(), share.shape)
    name = f"{readouts[readout]} along {curves.direction.values[direction]} at {steps[step]:g}"
    return float(share[direction, step, readout]), name


@dataclass
class Watch:
    """Looks at the means of a sweep after every shard."""

    until_ci: float
    at_most: int
    length: int
    stopped: Stopped | None = None
    """What the last look found."""
    _seen: list[Float64[np.ndarray, "direction step readout sequence"]] = field(default_factory=list)

    def look(self, shard: xr.Dataset) -> bool:
        """Take in one more shard; whether every mean is known now."""
        self._seen.append(sequence_means(shard))
        values = np.concatenate(self._seen, axis=-1)
        share, name = least_known(sequential_mean(values), shard)
        widest = share if np.isfinite(share) else None
        self.stopped = Stopped(self.until_ci, self.at_most, values.shape[-1], self.length, widest, name)
        return self.stopped.reached
