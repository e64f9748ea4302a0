"""Measurement: run the sequences once, then perturb, resume and read out at each direction and point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from tiltmeter.analysis.massive import ordinary
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun
from tiltmeter.models.positions import allowed, boundary_mask
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.perturb.bases import Base, transplanted
from tiltmeter.perturb.directions import Direction, Perturbation, normalise
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.own_directions import OfFunction
from tiltmeter.perturb.paths import Path
from tiltmeter.perturb.registry import rng_key
from tiltmeter.perturb.sources import Context
from tiltmeter.runs.rng import Address
from tiltmeter.sweeps.plan import Plan

T = TypeVar("T")

Arrays = dict[str, np.ndarray]

Advance = Callable[[int], None]
"""Called with the number of points, or curves, that were measured since the last call: progress within a shard."""


def unseen(number: int) -> None:
    """Show no progress."""


CLEAN_TOKENS = 1024
"""Clean tokens per batch. In GPT-2 small, perturbed runs need up to a megabyte per clean token."""


@dataclass(frozen=True)
class Batch:
    """A few sequences, run once at the start of the path: clean, or with a base in place."""

    plan: Plan
    sequences: Sequence[int]
    clean: CleanRun
    perturbed: Bool[Tensor, "batch span"]
    """Mask of tokens that are perturbed."""
    averaged: Bool[Tensor, "batch read"]
    """Mask of tokens that enter a sequence's mean."""
    not_boundary: Bool[Tensor, "batch position"]
    """Mask of tokens that the boundary policy of the statistics counts."""
    advance: Advance = unseen

    @cached_property
    def counted(self) -> Bool[Tensor, "batch position"]:
        """Return the mask of tokens that statistics count."""
        above = self.plan.sweep.massive.largest_counted(self.plan.massive_above)
        return (self.not_boundary & ordinary(self.whole, above)).to(self.clean.activation.device)

    @cached_property
    def whole(self) -> Float[Tensor, "batch position d_site"]:
        """Return the activation at every position."""
        return self.plan.model.whole(self.clean)


class PerturbedBatch(NamedTuple):
    """A direction's perturbation of each token of a batch, and which tokens count."""

    perturbation: Perturbation
    perturbed: Bool[Tensor, "batch span"]
    """Mask of tokens that are perturbed: the requested ones, except where the direction does not exist."""
    averaged: Bool[Tensor, "batch read"]
    """Mask of tokens that enter a sequence's mean along the direction."""


def measure_shard(
    plan: Plan,
    directions: Mapping[DirectionName, Direction],
    path: Path,
    sequences: Sequence[int],
    base: Base | None = None,
    advance: Advance = unseen,
) -> Arrays:
    """Measure all directions on some sequences.

    Args:
        plan: the sweep, with its names looked up.
        directions: by name.
        path: the points visited along them.
        sequences: their indices in the token set.
        base: the start of the path at the perturbed tokens; None for the clean activation. Readouts compare with the
            run that has the base in place.
        advance: called after every perturbed pass with its number of points: steps × sequences, of all directions.

    Returns:
        One array per readout, and `length`, the realised L2 length of the perturbation, all float64 [direction, step,
        sequence] (or [direction, step, sequence, position] if positions are kept); and `tokens`, the number of tokens
        averaged, int64 [direction, sequence].

    Raises:
        TiltmeterError: activations or a readout are not finite.
    """
    size = sequences_at_once(plan, len(path.steps))
    parts = []
    for some in in_batches(sequences, size):
        batch = replace(start_batch(plan, some, base), advance=advance)
        parts.append(stacked(measure_directions(batch, directions, path), len(directions)))
    return {name: np.concatenate([part[name] for part in parts], 1 if name == "tokens" else 2) for name in parts[0]}


def stacked(found: Iterable[Arrays], number: int) -> Arrays:
    """Stack the results of `number` directions along a new leading axis.

    The arrays are allocated up front. Small arrays kept one by one would lie between the large temporary tensors and
    fragment the heap, so that freed memory could not be reused.
    """
    whole: Arrays = {}
    for row, one in enumerate(found):
        for name, values in one.items():
            whole.setdefault(name, np.empty((number, *values.shape), values.dtype))[row] = values
    return whole


def sequences_at_once(plan: Plan, points: int) -> int:
    """Return how many sequences fit in memory at once, each perturbed at `points` points; at least one."""
    span = _span_tokens(plan)
    return max(1, min(plan.sweep.batch_tokens // (span * points), CLEAN_TOKENS // span))


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split sequences, or directions, into batches of this size; the last may be smaller."""
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def directions_at_once(plan: Plan, sequences: int, points: int) -> int:
    """Return how many directions are run together on a batch of so many sequences; at least one."""
    return max(1, plan.sweep.batch_tokens // (_span_tokens(plan) * sequences * points))


def steps_at_once(plan: Plan, sequences: int) -> int:
    """Return how many steps of one direction are run together; at least one."""
    return max(1, plan.sweep.batch_tokens // (_span_tokens(plan) * sequences))


def _span_tokens(plan: Plan) -> int:
    return plan.positions.span.stop - plan.positions.span.first


def start_batch(plan: Plan, sequences: Sequence[int], base: Base | None) -> Batch:
    """Run sequences at the start of the path: clean, or with a base in place."""
    batch = _clean(plan, sequences)
    return batch if base is None else _based(batch, base)


def _clean(plan: Plan, sequences: Sequence[int]) -> Batch:
    ids = plan.tokens.ids[torch.tensor(sequences)]
    reads = tuple(dict.fromkeys(readout.site for readout in plan.readouts if readout.site is not None))
    span, bos = plan.positions.span, plan.sweep.bos
    boundary = boundary_mask(ids, plan.tokens.boundary)
    chosen = torch.zeros_like(boundary)
    chosen[:, list(plan.positions.perturbed)] = True
    clean, massive = plan.model.start(ids, plan.site, reads, span), plan.sweep.massive
    ordinary_ones = ordinary(clean.activation, plan.massive_above)
    perturbed = chosen & allowed(boundary, bos.perturbation)
    averaged = allowed(boundary, bos.average)[:, list(plan.positions.read)]
    if massive.perturbation == "out":
        perturbed[:, : span.stop] &= ordinary_ones
    if massive.average == "out":
        averaged &= ordinary_ones[:, list(plan.positions.read)]
    return Batch(plan, sequences, clean, span.cut(perturbed), averaged, allowed(boundary, bos.statistics))


def _based(batch: Batch, base: Base) -> Batch:
    """Replace the clean activations of the batch by those of the base, at the perturbed tokens."""
    model, context = batch.plan.model, _context(batch, base.rng_key)
    other = model.centre(base.source.sample(context, 1)[0].to(context.x), batch.plan.site)
    start = torch.where(batch.perturbed.to(other.device)[..., None], other, context.x)
    return replace(batch, clean=transplanted(model, batch.clean, start))


def _context(batch: Batch, key: str, draw: int = 0) -> Context:
    """Build the input of a direction or base, with the address of its random numbers.

    The address holds the sequences' indices in the token set, not in the batch, so that a token gets the same draws in
    any batch, shard or order of sequences.
    """
    span, activation = batch.plan.positions.span, batch.clean.activation
    rows, columns = torch.tensor(batch.sequences), torch.arange(span.first, span.stop)
    address = Address(batch.plan.sweep.seed, key, rows, columns, draw)
    tokens = batch.clean.tokens
    return Context(span.cut(activation), address, lambda: batch.whole, lambda: batch.counted, tokens)


def measure_directions(batch: Batch, directions: Mapping[DirectionName, Direction], path: Path) -> Iterator[Arrays]:
    """Measure curves on one batch, [step, sequence] or [step, sequence, position], direction by direction.

    The paths of several directions are run together if they fit in memory: a pass of few tokens costs nearly as much
    as one of many.
    """
    size = directions_at_once(batch.plan, len(batch.sequences), len(path.steps))
    for names in in_batches(list(directions), size):
        starts = {name: perturb_batch(batch, name, directions[name]) for name in names}
        if len(starts) == 1:
            ((name, start),) = starts.items()
            yield _averages(batch, start, _along_one(batch, name, start, path))
        else:
            values = _along_several(batch, starts, path)
            for number, start in enumerate(starts.values()):
                of_one = slice(number * len(path.steps), (number + 1) * len(path.steps))
                yield _averages(batch, start, {key: value[of_one] for key, value in values.items()})


def _along_one(batch: Batch, name: DirectionName, start: PerturbedBatch, path: Path) -> dict[str, Tensor]:
    """The readouts and lengths along one direction, [step, sequence, position], a few steps in each pass."""
    plan = batch.plan
    x = plan.positions.span.cut(batch.clean.activation)
    blocks: list[dict[str, Tensor]] = []
    for steps in _step_slices(plan, path, len(batch.sequences)):
        values = _readouts(batch, path.changes(x, start.perturbation, steps))
        _check_finite(plan, values, name, path.steps[steps])
        blocks.append(values)
    return {key: torch.cat([block[key] for block in blocks]) for key in blocks[0]}


def _along_several(
    batch: Batch, starts: Mapping[DirectionName, PerturbedBatch], path: Path
) -> dict[str, Float64[Tensor, "point batch position"]]:
    """The same along several directions, in one pass: their steps, direction by direction."""
    x = batch.plan.positions.span.cut(batch.clean.activation)
    changes = [path.changes(x, start.perturbation, slice(None)) for start in starts.values()]
    values = _readouts(batch, torch.cat(changes))
    for number, name in enumerate(starts):
        of_one = slice(number * len(path.steps), (number + 1) * len(path.steps))
        _check_finite(batch.plan, {key: value[of_one] for key, value in values.items()}, name, path.steps)
    return values


def _readouts(batch: Batch, change: Tensor) -> dict[str, Float64[Tensor, "point batch position"]]:
    """The readouts of perturbed runs, and the lengths of their perturbations."""
    plan, clean = batch.plan, batch.clean
    values = compute_readouts(plan.model, clean, plan.model.changes(clean, change), plan.readouts, plan.positions.read)
    batch.advance(len(change) * len(batch.sequences))
    return {**values, "length": change.double().norm(dim=-1).cpu()}


def _averages(batch: Batch, start: PerturbedBatch, values: dict[str, Tensor]) -> Arrays:
    """The averages over each sequence's tokens, or each token's values where positions are kept."""
    plan, (_, perturbed, averaged) = batch.plan, start
    tokens = averaged.sum(-1).numpy()
    if plan.sweep.keep_positions:
        read = _read(plan)
        masks = {key: averaged for key in values} | {"length": (perturbed[:, read] & averaged)}
        values["length"] = values["length"][..., read]
        return {key: value.where(masks[key], torch.nan).numpy() for key, value in values.items()} | {"tokens": tokens}
    masks = {key: averaged for key in values} | {"length": _lengths_counted(plan, perturbed, averaged)}
    return {key: masked_mean(value, masks[key]).numpy() for key, value in values.items()} | {"tokens": tokens}


def _lengths_counted(plan: Plan, perturbed: Tensor, averaged: Tensor) -> Bool[Tensor, "batch span"]:
    """The tokens whose lengths are averaged: those perturbed and averaged; in a sequence without any, those perturbed.

    A token that is left out of the averages may have a perturbation of a quite different length.
    """
    both = torch.zeros_like(perturbed)
    both[:, _read(plan)] = averaged
    both &= perturbed
    return torch.where(both.any(1, keepdim=True), both, perturbed)


def perturb_batch(batch: Batch, name: DirectionName, direction: Direction) -> PerturbedBatch:
    """Compute a direction's perturbation of each token of a batch, and which tokens are perturbed and averaged."""
    perturbation, lost = _perturbation(batch, name, direction)
    perturbed = batch.perturbed & ~lost
    # A sequence without a perturbed token has the readouts of the clean run, which must not be averaged.
    clean = ~perturbed.any(1)
    return PerturbedBatch(perturbation, perturbed, batch.averaged & ~lost[:, _read(batch.plan)] & ~clean[:, None])


def check_functions_alone(plan: Plan, directions: Mapping[DirectionName, Direction], base: Base | None) -> None:
    """Run the user's functions among the directions on two sequences, together and one by one.

    Raises:
        TiltmeterError: a function fails, or its vectors for a sequence depend on the other.
    """
    own = {name: one for name, one in directions.items() if isinstance(one, OfFunction)}
    if not own:
        return
    batch = start_batch(plan, plan.order[:2], base)
    for name, direction in own.items():
        direction.check_alone(_context(batch, rng_key(name), name.draw))


def _read(plan: Plan) -> Int[Tensor, "read"]:
    """Return the indices in the span that are read."""
    return torch.tensor(plan.positions.read) - plan.positions.span.first


def _perturbation(
    batch: Batch, name: DirectionName, direction: Direction
) -> tuple[Perturbation, Bool[Tensor, "batch span"]]:
    """Compute the perturbation, and the mask of tokens to perturb at which the direction does not exist.

    There the vector is zero, e.g. because the drawn activation equals the token's own after an identical prefix. Such
    tokens are left out of the averages.
    """
    plan = batch.plan
    context = _context(batch, rng_key(name), name.draw)
    found = normalise(direction, context, lambda vector: plan.model.centre(vector, plan.site))
    mask = batch.perturbed.to(context.x.device)
    lost = batch.perturbed & (found.distance == 0).cpu()
    return Perturbation(found.unit * mask[..., None], found.distance * mask, found.vector * mask[..., None]), lost


def _step_slices(plan: Plan, path: Path, sequences: int) -> Iterator[slice]:
    """Split the path into slices whose perturbed tokens fit in memory."""
    size = steps_at_once(plan, sequences)
    for begin in range(0, len(path.steps), size):
        yield slice(begin, begin + size)


def masked_mean(
    values: Float64[Tensor, "step batch position"], mask: Bool[Tensor, "batch position"]
) -> Float64[Tensor, "step batch"]:
    """Average over masked positions that have a value (a loss has none at the last). NaN if there are none."""
    counted = mask & ~values.isnan()
    return values.where(counted, 0.0).sum(-1) / counted.sum(-1)


def _check_finite(plan: Plan, values: Mapping[str, Tensor], direction: DirectionName, steps: tuple[float, ...]) -> None:
    followed = torch.tensor(plan.positions.read) + 1 < plan.tokens.ids.shape[1]
    for readout in plan.readouts:
        value = values[readout.name]
        bad = readout.faulty(value, followed.expand_as(value)).flatten(1).any(1)
        if bool(bad.any()):
            step = steps[int(bad.nonzero()[0, 0])]
            raise TiltmeterError(
                f"{readout.name} along {direction} is not finite at step {step:g}; use shorter steps, or --precision "
                "float64."
            )
