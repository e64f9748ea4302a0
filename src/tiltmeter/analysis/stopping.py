"""Stop a sweep at a target precision: whether every mean has reached it, and how many sequences that took.

A mean is that of one direction, step and readout over sequences. It is known to ±2 % if half of its time-uniform
interval (`tiltmeter.analysis.confidence_sequences`) is at most 2 % of it. Most readouts are positive under any
perturbation, so a relative precision is meaningful however small the mean. `cos` crosses zero; its precision is
relative to 1, its maximum. A logit difference and a user's function may cross zero as well: where their mean is next
to zero it is not known to any fraction of itself, and the sweep takes all sequences and says so. Steps of 0 are not
waited for (only rounding is left there), nor `length`, which is not a readout, nor curves of which no sequence was
measured. A mean of values that have all been equal is not known: nothing says how the next one differs.

No interval knows of values that were not seen. What occurs in a fraction p of the sequences is missing from n of them
with probability (1 - p)^n, and the report says for which p that is 5 %.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int64

from tiltmeter.analysis.confidence_sequences import FIRST_LOOK, sequential_mean
from tiltmeter.analysis.curves import readout_names, sequence_means
from tiltmeter.analysis.intervals import MeanInterval

LEE2024_TOKENS = 2_000_000
"""Tokens that Lee & Heimersheim 2024 average over."""


_ROUNDING = 1e-12
"""Relative half-width of an interval of equal values, up to rounding."""


@dataclass(frozen=True)
class Stopped:
    """How a sweep with a target precision ended; stored with the curves as JSON."""

    until_ci: float
    """The target: half the interval as a fraction of the mean."""
    at_most: int
    """The largest number of sequences allowed."""
    sequences: int
    """Sequences that were measured."""
    length: int
    """Tokens of a sequence."""
    widest: float | None
    """The worst precision of any mean, as a fraction of it; None if a mean has no interval."""
    of: str
    """The mean with the worst precision."""

    @property
    def reached(self) -> bool:
        """Whether every mean reached the target."""
        return self.widest is not None and self.widest <= self.until_ci

    @property
    def tokens(self) -> int:
        """Tokens of the sequences that were measured."""
        return self.sequences * self.length

    @property
    def sentence(self) -> str:
        """What the sweep took and saved, in a sentence for the report."""
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
            f"{_two_digits(more)} times as many. {self._unseen}"
        )

    @property
    def _unseen(self) -> str:
        """What so few sequences need not contain, however narrow the intervals are."""
        rare = 100 * (1 - 0.05 ** (1 / self.sequences))
        return (
            f"Intervals say nothing of values that did not occur: what occurs in {_two_digits(rare)} % of sequences is "
            f"missing from {self.sequences:,} of them with a probability of 5 %, and anything rarer more often."
        )

    @property
    def _lack(self) -> str:
        if self.widest is None:
            return f"{self.of} has no interval, which takes {FIRST_LOOK} sequences that are not all equal"
        # the width of an interval falls nearly as 1/√n
        enough = self.sequences * (self.widest / self.until_ci) ** 2
        known = f"{self.of} is known to ±{_two_digits(100 * self.widest)} %"
        return f"{known}, and the goal takes about {_two_digits(enough)} sequences"

    def to_json(self) -> str:
        """Serialise for the attribute `stopping` of curves."""
        return json.dumps(asdict(self) | {"tokens": self.tokens, "reached": self.reached})

    @classmethod
    def of_curves(cls, curves: xr.Dataset) -> Stopped | None:
        """Read how the sweep of these curves ended; None if it had no target precision."""
        if "stopping" not in curves.attrs:
            return None
        stored: dict[str, Any] = json.loads(curves.attrs["stopping"])
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__})


def _two_digits(value: float) -> str:
    """`1,200`, `75` or `0.48`."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def least_known(means: MeanInterval, curves: xr.Dataset) -> tuple[float, str]:
    """The worst relative precision of any mean (half its interval over the mean), and its name.

    It is infinite without an interval, and where all values have been equal.

    Args:
        means: means and intervals by direction, step and readout.
        curves: the curves averaged; only their axes are read.
    """
    readouts, steps = readout_names(curves), curves.step.values
    of_cosine = np.array([name.startswith("cos@") for name in readouts])
    waited = (means.n > 0) & (steps != 0)[:, None] & np.array([name != "length" for name in readouts])
    if not waited.any():
        return 0.0, "nothing"
    half, size = means.high - means.mean, np.where(of_cosine, 1.0, np.abs(means.mean))
    relative = np.divide(half, size, out=np.full_like(half, np.inf), where=size > 0)
    relative[half <= _ROUNDING * size] = np.inf  # equal values so far
    relative = np.where(waited, np.where(np.isnan(relative), np.inf, relative), -np.inf)
    direction, step, readout = np.unravel_index(relative.argmax(), relative.shape)
    name = f"{readouts[readout]} along {curves.direction.values[direction]} at {steps[step]:g}"
    return float(relative[direction, step, readout]), name


@dataclass
class Watch:
    """The stopping rule of a sweep: checks the precision of all means after every shard."""

    until_ci: float
    at_most: int
    length: int
    stopped: Stopped | None = None
    """The result of the last look."""
    _seen: list[Float64[np.ndarray, "direction step readout sequence"]] = field(default_factory=list)
    _documents: list[Int64[np.ndarray, " sequence"]] = field(default_factory=list)

    def look(self, shard: xr.Dataset) -> bool:
        """Add a shard; return whether every mean has reached the target."""
        self._seen.append(sequence_means(shard))
        self._documents.append(shard["document"].values)
        values, documents = np.concatenate(self._seen, axis=-1), np.concatenate(self._documents)
        precision, name = least_known(sequential_mean(values, documents=documents), shard)
        widest = precision if np.isfinite(precision) else None
        self.stopped = Stopped(self.until_ci, self.at_most, values.shape[-1], self.length, widest, name)
        return self.stopped.reached
