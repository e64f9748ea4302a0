"""Measuring crossings: all directions on a few sequences bisect at once, each curve at its own point of the path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.bases import Base
from tiltmeter.bisection import Found, Goal, find_crossings
from tiltmeter.errors import TiltmeterError
from tiltmeter.paths import Sphere, Straight
from tiltmeter.plan import Plan
from tiltmeter.pushes import Direction, Push
from tiltmeter.readouts import measure
from tiltmeter.shards import Batch, Pushed, masked_mean, start_batch, start_push

Arrays = dict[str, np.ndarray]


def measure_crossings(
    plan: Plan,
    goal: Goal,
    directions: Mapping[str, Direction],
    path: Straight | Sphere,
    sequences: range,
    base: Base | None = None,
) -> Arrays:
    """Find where the readout of each sequence passes the goal's threshold along each direction.

    What bisects is the curve that a sweep gives: the mean over a sequence's averaged tokens, all of which move by the
    same step of the path.

    Returns:
        The parts of `Found` and `tokens`, how many were averaged, each [direction, sequence].

    Raises:
        TiltmeterError: activations or the readout are not finite.
    """
    per_sequence = (plan.positions.span.stop - plan.positions.span.first) * len(directions)
    size = max(1, plan.sweep.batch_tokens // per_sequence)
    parts = []
    for begin in range(sequences.start, sequences.stop, size):
        batch = start_batch(plan, range(begin, min(begin + size, sequences.stop)), base)
        pushed = [start_push(batch, name, direction) for name, direction in directions.items()]
        parts.append(_find(batch, pushed, path, goal, list(directions)))
    return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}


def _find(
    batch: Batch, pushed: Sequence[Pushed], path: Straight | Sphere, goal: Goal, directions: Sequence[str]
) -> Arrays:
    shape = (len(directions), len(batch.sequences))
    push = Push(*(torch.cat(parts) for parts in zip(*(one.push for one in pushed), strict=True)))
    averaged = torch.cat([one.averaged for one in pushed])
    curves = BatchCurves(batch, path, push, averaged, tuple(directions))
    found: Found = find_crossings(curves, len(averaged), np.sort(np.asarray(path.steps)), goal)
    arrays = {name: value.reshape(shape) for name, value in found._asdict().items()}
    return arrays | {"tokens": averaged.sum(-1).numpy().reshape(shape)}


@dataclass(frozen=True)
class BatchCurves:
    """Every direction's curve on every sequence of a batch, measured a point at a time.

    Curves are numbered direction by direction. Each is a row of its own: those that have been found cost nothing more,
    at the price of the clean run's logits once a row.
    """

    batch: Batch
    path: Straight | Sphere
    push: Push
    """By curve."""
    averaged: Bool[Tensor, "curve read"]
    directions: tuple[str, ...]

    def __call__(self, rows: Int[np.ndarray, " row"], at: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """The curves' values, each at its own point."""
        plan = self.batch.plan
        size = max(1, plan.sweep.batch_tokens // (plan.positions.span.stop - plan.positions.span.first))
        pieces = (slice(begin, begin + size) for begin in range(0, len(rows), size))
        return np.concatenate([self._values(rows[piece], at[piece]) for piece in pieces])

    def _values(self, rows: Int[np.ndarray, " row"], at: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        plan = self.batch.plan
        index = torch.from_numpy(rows)
        clean = self.batch.clean.rows((index % len(self.batch.sequences)).to(self.batch.clean.activation.device))
        x = plan.positions.span.cut(clean.activation)
        push = Push(*(part[index.to(part.device)] for part in self.push))
        points = torch.tensor(at, dtype=x.dtype, device=x.device)[None, :, None]
        change = plan.model.changes(clean, self.path.at(x, push, points))
        (values,) = measure(plan.model, clean, change, plan.readouts, plan.positions.read).values()
        self._check_finite(values[0], rows, at)
        return masked_mean(values, self.averaged[index])[0].numpy()

    def _check_finite(
        self, values: Float[Tensor, "row read"], rows: Int[np.ndarray, " row"], at: Float[np.ndarray, " row"]
    ) -> None:
        bad = ~torch.isfinite(values).all(-1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            direction = self.directions[int(rows[first]) // len(self.batch.sequences)]
            raise TiltmeterError(
                f"{self.batch.plan.readouts[0].name} along {direction} is not finite at step {at[first]:g}; take "
                "shorter steps, or --precision float64."
            )
