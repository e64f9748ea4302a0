"""Try a run at one site: its statistics on a few sequences, its self-checks, a few batches, and its tables."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch

from tiltmeter.models.loading import LoadedModel
from tiltmeter.perturb.site_statistics import counted_tokens
from tiltmeter.runs.peak_memory import peak_memory
from tiltmeter.runs.run_directory import manifest_bytes
from tiltmeter.runs.weighed import WeighedRun
from tiltmeter.sweeps.compare import budget_search, comparison_identity
from tiltmeter.sweeps.comparison import Comparison
from tiltmeter.sweeps.crossings import Crossings, crossings_identity, search_of
from tiltmeter.sweeps.parts import Part, weigh
from tiltmeter.sweeps.plan import Plan, Sweep
from tiltmeter.sweeps.records import identity, record
from tiltmeter.sweeps.run import Prepared, check, for_statistics
from tiltmeter.sweeps.trials import StatisticsTrial, try_search, try_statistics, try_sweep

Wanted = Sweep | Crossings | Comparison


def identity_of(wanted: Wanted, plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    """Collect everything that determines the numbers of a run of any kind."""
    if isinstance(wanted, Crossings):
        return crossings_identity(wanted, plan, loaded)
    return comparison_identity(wanted, plan, loaded) if isinstance(wanted, Comparison) else identity(plan, loaded)


class Tried(NamedTuple):
    """What was found by trying a run at a site."""

    plan: Plan
    parts: tuple[Part, ...]
    statistics: float
    """Seconds. `other`: likewise, of hashes, self-checks and tables; `once`: of what only the first batches take."""
    other: float
    once: float
    disk: int
    memory: int | None
    device_memory: int | None
    statistics_sequences: int

    @property
    def measuring(self) -> dict[str, float]:
        """Seconds that all sequences take, by what the shards are called."""
        return {part.stored: len(self.plan.order) * part.trial.per_sequence for part in self.parts}


def try_run(wanted: Wanted, plan: Plan, loaded: LoadedModel) -> Tried:
    """Try a run at a site."""
    run, device = WeighedRun(), plan.model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    manifest = {"identity": identity_of(wanted, plan, loaded), "record": record(plan, loaded, "dry run")}
    run.write_bytes("manifest.json", manifest_bytes(**manifest))
    other = time.perf_counter() - began
    fitted = try_statistics(plan, run)
    began = time.perf_counter()
    check(fitted.ready, run)
    other += time.perf_counter() - began
    before = peak_memory()
    parts = _tried_parts(wanted, fitted.ready)
    after, on_device = peak_memory(), torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    tables, held = weigh(fitted.ready, run, parts, manifest)
    more = _pool_growth(plan, fitted)
    share = max(part.trial.usual / part.trial.sequences for part in parts)
    return Tried(
        plan=plan,
        parts=parts,
        statistics=len(for_statistics(plan).ids) * fitted.per_sequence + fitted.once,
        other=other + tables,
        once=sum(part.trial.once for part in parts),
        disk=sum(run.sizes.values()) + more,
        memory=None if before is None or after is None else round(after + (share - 1) * (after - before)) + held + more,
        device_memory=None if on_device is None else round(share * on_device),
        statistics_sequences=fitted.sequences,
    )


def _tried_parts(wanted: Wanted, ready: Prepared) -> tuple[Part, ...]:
    searches = []
    if isinstance(wanted, Crossings):
        searches = [search_of(wanted, ready)]
    if isinstance(wanted, Comparison):
        searches = [budget_search(wanted, ready, which) for which in range(len(wanted.budgets))]
    found = [Part(search.stored, search, try_search(ready, search)) for search in searches]
    return (*found,) if isinstance(wanted, Crossings) else (Part("shard", None, try_sweep(ready)), *found)


def _pool_growth(plan: Plan, fitted: StatisticsTrial) -> int:
    """Bytes by which the pool of real activations is larger than that of the few sequences that were tried."""
    pool, tokens = fitted.ready.statistics.pool, for_statistics(plan)
    counted = counted_tokens(tokens, plan.sweep.bos, plan.statistics_positions).sum(1)
    all_of_them, of_tried = (min(plan.sweep.pool, int(one.sum())) for one in (counted, counted[: fitted.sequences]))
    entry = pool.element_size() * pool.shape[1] + 8  # with the index of its sequence
    return round(entry * len(pool) * (all_of_them / of_tried - 1))
