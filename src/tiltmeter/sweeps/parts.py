"""The parts of a run that was tried: how many passes each is, and how large its shards and tables become."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tiltmeter.runs.weighed import WeighedRun
from tiltmeter.sweeps.counts import Passes, number_of_shards, search_passes, sweep_passes
from tiltmeter.sweeps.crossings import CROSSINGS, Search, crossing_table, write_crossings
from tiltmeter.sweeps.measure import Arrays
from tiltmeter.sweeps.plan import Plan
from tiltmeter.sweeps.records import attributes
from tiltmeter.sweeps.run import Prepared, as_curves, write_curves
from tiltmeter.sweeps.trials import ENOUGH, Trial, seconds_of, timed

TABLED = 2e7
"""Bytes of the results that tables are tried on."""

COPIES = 4
"""How often results are in memory at once, while they are merged and written."""


class Part(NamedTuple):
    """A kind of shards of a run, tried at a site."""

    stored: str
    """What its shards are called."""
    search: Search | None
    """The search that they are of; None for those of a sweep."""
    trial: Trial

    def directions(self, plan: Plan) -> int:
        """Number of directions."""
        return len(plan.directions if self.search is None else self.search.directions)

    def points(self, plan: Plan) -> float:
        """Points along each direction."""
        return float(len(plan.sweep.path.steps) if self.search is None else self.trial.arrays["points"].mean())

    def passes(self, plan: Plan) -> Passes:
        """Forward passes; those of a search as many as the curve with the most points needed."""
        if self.search is None:
            return sweep_passes(plan)
        return search_passes(plan, self.directions(plan), int(self.trial.arrays["points"].max()))

    def perturbed_tokens(self, plan: Plan) -> int:
        """Perturbed tokens of all sequences."""
        return round(len(plan.order) * len(plan.positions.perturbed) * self.directions(plan) * self.points(plan))


def weigh(ready: Prepared, run: WeighedRun, parts: Sequence[Part], manifest: dict[str, Any]) -> tuple[float, int]:
    """Weigh the shards and tables of a run: those of the sequences that were tried, repeated, and made larger.

    Returns:
        Seconds that the tables take, and bytes that the results need in memory.
    """
    plan, seconds, held = ready.plan, 0.0, 0
    for part in parts:
        directions, arrays = part.directions(plan), part.trial.arrays
        each = sum(one.nbytes for one in arrays.values()) / (len(arrays["tokens"]) * part.trial.sequences)
        number = max(1, min(len(plan.order), int(TABLED / (each * directions))))
        arrays = {name: _repeated(one, directions, number) for name, one in arrays.items()}
        data, factor = sum(one.nbytes for one in arrays.values()), len(plan.order) / number
        run.save(part.stored, arrays)
        run.sizes[part.stored] = number_of_shards(plan) * (run.sizes[part.stored] - data) + round(factor * data)
        write = partial(_write_tables, ready, run, part, arrays, manifest)
        first = timed(write)
        later = first if first > ENOUGH else seconds_of(write)
        seconds += factor * later + max(0.0, first - later)
        if part.search is None:
            run.sizes["curves.nc"] += round((factor - 1) * data)
        for name in run.sizes.keys() & {"crossings.csv", "crossings.parquet"}:
            run.sizes[name] = round(factor * run.sizes[name])
        held += COPIES * round(factor * data)
    return seconds, held


def _repeated(values: np.ndarray, directions: int, sequences: int) -> np.ndarray:
    """Arrays of so many directions and sequences."""
    axis = 1 if values.ndim == 2 else 2  # [direction, sequence] or [direction, step, sequence, ...]
    return values.take(range(directions), 0, mode="wrap").take(range(sequences), axis, mode="wrap")


def _write_tables(ready: Prepared, run: WeighedRun, part: Part, arrays: Arrays, manifest: dict[str, Any]) -> None:
    """Weigh the tables of these sequences; a comparison's other tables have a few rows."""
    plan = ready.plan
    if part.search is None:
        found = as_curves(ready, arrays, range(arrays["tokens"].shape[1]), plan.directions)
        write_curves(run, found.assign_attrs(attributes(plan, ready.statistics, ready.saes, manifest)))
    elif part.stored == CROSSINGS:
        write_crossings(plan, run, crossing_table(arrays, tuple(map(str, plan.directions)), plan.tokens.document))
