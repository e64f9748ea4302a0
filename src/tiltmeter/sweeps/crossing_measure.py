"""Crossings of a few sequences, bisected for all directions at once, each curve at its own point of the path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.analysis.bisection import CrossingResult, CrossingTarget, find_crossings
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.perturb.bases import Base
from tiltmeter.perturb.directions import Direction, Perturbation
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.paths import Sphere, Straight
from tiltmeter.sweeps.measure import (
    Advance,
    Batch,
    PerturbedBatch,
    in_batches,
    masked_mean,
    perturb_batch,
    sequences_at_once,
    start_batch,
    unseen,
)
from tiltmeter.sweeps.plan import Plan

Arrays = dict[str, np.ndarray]


def measure_crossings(
    plan: Plan,
    goal: CrossingTarget,
    directions: Mapping[DirectionName, Direction],
    path: Straight | Sphere,
    sequences: range,
    base: Base | None = None,
    advance: Advance = unseen,
) -> Arrays:
    """Find where the readout of each sequence crosses the goal's threshold along each direction.

    The bisected curve is the one that a sweep returns: the mean over a sequence's averaged tokens, all perturbed by the
    same step of the path. `advance` is called after every batch with its number of curves.

    Returns:
        The fields of `CrossingResult`, and `tokens`, the number of averaged tokens; each [direction, sequence].

    Raises:
        TiltmeterError: activations or the readout are not finite.
    """
    size = sequences_at_once(plan, len(directions))
    parts = []
    for some in in_batches(sequences, size):
        batch = start_batch(plan, some, base)
        starts = [perturb_batch(batch, name, direction) for name, direction in directions.items()]
        parts.append(_find(batch, starts, path, goal, list(directions)))
        advance(len(some) * len(directions))
    return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}


def _find(
    batch: Batch,
    starts: Sequence[PerturbedBatch],
    path: Straight | Sphere,
    goal: CrossingTarget,
    directions: Sequence[DirectionName],
) -> Arrays:
    shape = (len(directions), len(batch.sequences))
    perturbation = Perturbation(
        *(torch.cat(parts) for parts in zip(*(one.perturbation for one in starts), strict=True))
    )
    averaged = torch.cat([one.averaged for one in starts])
    curves = BatchCurves(batch, path, perturbation, averaged, tuple(directions))
    found: CrossingResult = find_crossings(curves, len(averaged), np.sort(np.asarray(path.steps)), goal)
    arrays = {name: value.reshape(shape) for name, value in found._asdict().items()}
    return arrays | {"tokens": averaged.sum(-1).numpy().reshape(shape)}


@dataclass(frozen=True)
class BatchCurves:
    """The curves of all directions on all sequences of a batch, measured one point at a time.

    Curves are numbered direction by direction. A resumed run evaluates one point of several unfinished curves per
    sequence, in place of the several points of one path that a sweep evaluates. Sequences with fewer unfinished curves
    than others are padded with unperturbed points.
    """

    batch: Batch
    path: Straight | Sphere
    perturbation: Perturbation
    """Fields of the perturbations, indexed by curve."""
    averaged: Bool[Tensor, "curve read"]
    directions: tuple[DirectionName, ...]

    def __call__(self, rows: Int[np.ndarray, " row"], at: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """Evaluate these curves, each at its own point."""
        plan, clean = self.batch.plan, self.batch.clean
        sequence = rows % len(self.batch.sequences)
        point = np.tril(sequence[:, None] == sequence, -1).sum(1)  # rank of the curve among those of its sequence
        index, place = torch.from_numpy(rows), (torch.from_numpy(point), torch.from_numpy(sequence))
        x = plan.positions.span.cut(clean.activation)
        perturbation = Perturbation(*(part[index.to(part.device)] for part in self.perturbation))
        steps = torch.tensor(at, dtype=x.dtype, device=x.device)[None, :, None]
        change = x.new_zeros(int(point.max()) + 1, *x.shape)
        change[place] = self.path.at(x[place[1].to(x.device)], perturbation, steps)[0]
        (values,) = compute_readouts(
            plan.model, clean, plan.model.changes(clean, change), plan.readouts, plan.positions.read
        ).values()
        self._check_finite(values[place], rows, at)
        return masked_mean(values[place][None], self.averaged[index])[0].numpy()

    def _check_finite(
        self, values: Float[Tensor, "row read"], rows: Int[np.ndarray, " row"], at: Float[np.ndarray, " row"]
    ) -> None:
        (readout,) = self.batch.plan.readouts
        bad = readout.faulty(values, torch.ones_like(values, dtype=torch.bool)).any(-1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            direction = self.directions[int(rows[first]) // len(self.batch.sequences)]
            raise TiltmeterError(
                f"{readout.name} along {direction} is not finite at step {at[first]:g}; use "
                "shorter steps, or --precision float64."
            )
