"""How many passes and shards a run consists of, from its plan."""

from __future__ import annotations

from typing import NamedTuple

from tiltmeter.perturb.site_statistics import BATCH
from tiltmeter.sweeps.measure import directions_at_once, in_batches, sequences_at_once, steps_at_once
from tiltmeter.sweeps.plan import Plan
from tiltmeter.sweeps.run import for_statistics, passes_over_saes


class Passes(NamedTuple):
    """Forward passes of batches."""

    clean: int
    perturbed: int


def sweep_passes(plan: Plan) -> Passes:
    """Count the passes of a sweep."""
    points, directions = len(plan.sweep.path.steps), len(plan.directions)
    sizes = _batch_sizes(plan, sequences_at_once(plan, points))
    perturbed = [
        -(-directions // directions_at_once(plan, size, points)) * -(-points // steps_at_once(plan, size))
        for size in sizes
    ]
    return Passes(len(sizes), sum(perturbed))


def search_passes(plan: Plan, directions: int, rounds: int) -> Passes:
    """Count the passes of a search in so many rounds, in each of which all curves are measured at one point."""
    batches = len(_batch_sizes(plan, sequences_at_once(plan, directions)))
    return Passes(batches, batches * rounds)


def statistics_passes(plan: Plan) -> int:
    """Count the passes over the sequences that serve the statistics, latent statistics included."""
    return -(-len(for_statistics(plan).ids) // BATCH) * (1 + len(passes_over_saes(plan.counted_saes)))


def number_of_shards(plan: Plan) -> int:
    """Count the shards of a sweep or a search."""
    return -(-len(plan.order) // plan.sweep.shard)


def _batch_sizes(plan: Plan, at_once: int) -> list[int]:
    return [len(batch) for shard in in_batches(plan.order, plan.sweep.shard) for batch in in_batches(shard, at_once)]
