"""Trials: a few batches of a run, timed and thrown away, from which `dry_run` extrapolates.

What is timed is what the run calls. The first batches compile kernels, which a run does once: the time that they take
longer than later ones counts apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import Any, NamedTuple, TypeVar

from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.site_statistics import BATCH, counted_tokens, read_activations
from tiltmeter.runs.run_directory import Run
from tiltmeter.saes.latent_statistics import count_latents
from tiltmeter.sweeps.crossing_measure import measure_crossings
from tiltmeter.sweeps.crossings import Search
from tiltmeter.sweeps.measure import (
    Arrays,
    Batch,
    directions_at_once,
    in_batches,
    measure_directions,
    sequences_at_once,
    stacked,
    start_batch,
)
from tiltmeter.sweeps.plan import Plan
from tiltmeter.sweeps.run import Prepared, build, for_statistics, passes_over_saes, stored_latents, stored_statistics

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that one timed piece may take: of a batch that takes longer, some sequences are tried."""

ENOUGH = 2.0
"""Seconds of timed pieces from which on they are not repeated."""

REPEATS = 3
"""Most repetitions of a timed piece."""

GROUPS = 3
"""Most groups of directions that are tried on a batch."""


class StatisticsTrial(NamedTuple):
    """The statistics of a few sequences, and what they took."""

    ready: Prepared
    """What is built from them."""
    sequences: int
    per_sequence: float
    """Seconds."""
    once: float
    """Seconds that do not depend on the number of sequences."""


class Trial(NamedTuple):
    """A few sequences measured along some directions."""

    arrays: Arrays
    """What was measured, [direction, ...]."""
    sequences: int
    """In a timed batch."""
    usual: int
    """Sequences in a batch of the run."""
    per_sequence: float
    """Seconds that all directions take."""
    once: float
    """Seconds that only the first batches take."""


def seconds_of(work: Callable[[], Any]) -> float:
    """The median time of a piece of work, repeated if it is short."""
    times: list[float] = []
    while sum(times) < ENOUGH and len(times) < REPEATS:
        times.append(timed(work))
    return median(times)


def timed(work: Callable[[], Any]) -> float:
    """The seconds that a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def try_statistics(plan: Plan, run: Run) -> StatisticsTrial:
    """Compute the statistics, and latent statistics, of the first sequences, and build the directions from them."""
    number = min(BATCH, len(for_statistics(plan).ids))
    plan = replace(plan, sweep=plan.sweep.model_copy(update={"statistics_sequences": number}))
    some, sweep = for_statistics(plan), plan.sweep
    mask = counted_tokens(some, sweep.bos, plan.statistics_positions)
    began = time.perf_counter()
    statistics = stored_statistics(plan, run)
    whole = time.perf_counter() - began
    read = partial(read_activations, plan.model, some, plan.site, mask, mask, sweep.massive)
    growing = _growing(whole, read)
    plan = replace(plan, massive_above=statistics.massive.limit)
    began = time.perf_counter()
    saes = stored_latents(plan, run)
    if plan.counted_saes:
        of_latents = time.perf_counter() - began
        whole, growing = whole + of_latents, growing + _growing(of_latents, partial(_count_all_latents, plan))
    ready = build(plan, statistics, saes)
    return StatisticsTrial(ready, number, growing / number, max(0.0, whole - growing))


def _growing(whole: float, again: Callable[[], Any]) -> float:
    """Seconds of the part that grows with the number of sequences: nearly all, if it takes long."""
    return whole if whole > PATIENCE else min(whole, seconds_of(again))


def _count_all_latents(plan: Plan) -> None:
    some = for_statistics(plan)
    mask = counted_tokens(some, plan.sweep.bos, None)
    for labels in passes_over_saes(plan.counted_saes):
        saes = {label: plan.saes[label] for label in labels}
        count_latents(plan.model, some, plan.site, mask, saes, plan.massive_above)


def try_sweep(ready: Prepared) -> Trial:
    """Measure a few batches of a sweep, on directions spread over all."""
    plan, points = ready.plan, len(ready.path.steps)
    shard = plan.order[: plan.sweep.shard]
    usual = in_batches(shard, sequences_at_once(plan, points))[0]
    at_once = directions_at_once(plan, len(usual), points)
    first, *others = in_batches(spread(tuple(ready.directions), at_once * GROUPS), at_once)
    number, once = _affordable(lambda: _measured(ready, _started(ready, usual[:1]), first), len(usual))
    batches = [batch for batch in in_batches(shard, number) if len(batch) == number]
    began = time.perf_counter()
    before = _started(ready, batches[0])  # kept, as a run keeps a batch while it starts the next
    arrays = _measured(ready, before, first)
    begin = time.perf_counter() - began
    starts: list[float] = []
    further: list[float] = []
    while sum(starts) + sum(further) < ENOUGH and len(starts) < REPEATS:
        began = time.perf_counter()
        batch = _started(ready, batches[(len(starts) + 1) % len(batches)])
        _measured(ready, batch, first)
        starts.append(time.perf_counter() - began)
        further += [timed(partial(_measured, ready, batch, group)) / len(group) for group in others]
    left = len(ready.directions) - len(first)
    seconds = fmean(starts) + (left * fmean(further) if left else 0.0)
    return Trial(arrays, number, len(usual), seconds / number, once + max(0.0, begin - fmean(starts)))


def _started(ready: Prepared, sequences: Sequence[int]) -> Batch:
    return start_batch(ready.plan, sequences, ready.base)


def _measured(ready: Prepared, batch: Batch, names: Sequence[DirectionName]) -> Arrays:
    return stacked(measure_directions(batch, {name: ready.directions[name] for name in names}, ready.path), len(names))


def try_search(ready: Prepared, search: Search) -> Trial:
    """Search the crossings of a few sequences."""
    plan = ready.plan
    shard = range(min(plan.sweep.shard, plan.sweep.sequences))
    usual = in_batches(shard, sequences_at_once(plan, len(search.directions)))[0]

    def found(number: int) -> Arrays:
        return measure_crossings(plan, search.goal, search.directions, search.path, range(number), ready.base)

    number, once = _affordable(lambda: found(1), len(usual))
    began = time.perf_counter()
    arrays = found(number)
    begin, later = time.perf_counter() - began, seconds_of(lambda: found(number))
    return Trial(arrays, number, len(usual), later / number, once + max(0.0, begin - later))


def spread(names: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of these, evenly spaced: neighbours are often of one kind, and cost the same."""
    return names[:: -(-len(names) // most)]


def _affordable(one: Callable[[], Any], most: int) -> tuple[int, float]:
    """How many sequences are tried at once, from the time that one takes; and the seconds that only the first takes."""
    first, later = timed(one), timed(one)
    return max(1, min(most, int(PATIENCE / later))), max(0.0, first - later)
