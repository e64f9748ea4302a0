"""What a run would take, found by trying a few of its batches: nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch

from tiltmeter.data.token_set import TokensGiven
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel, ModelGiven, load_model, tokens_for
from tiltmeter.models.sites import names_several
from tiltmeter.perturb.site_statistics import counted_tokens
from tiltmeter.runs.peak_memory import peak_memory
from tiltmeter.runs.run_directory import manifest_bytes, stored_names
from tiltmeter.runs.user_paths import user_path
from tiltmeter.runs.weighed import WeighedRun
from tiltmeter.sweeps.compare import budget_search, comparison_identity
from tiltmeter.sweeps.comparison import Comparison
from tiltmeter.sweeps.counts import Passes, number_of_shards, search_passes, statistics_passes, sweep_passes
from tiltmeter.sweeps.crossings import (
    CROSSINGS,
    Crossings,
    Search,
    crossing_table,
    crossings_identity,
    search_of,
    write_crossings,
)
from tiltmeter.sweeps.forecast import Forecast
from tiltmeter.sweeps.measure import Arrays
from tiltmeter.sweeps.plan import Plan, Sweep, make_plan
from tiltmeter.sweeps.records import attributes, identity, record
from tiltmeter.sweeps.run import Prepared, as_curves, check, for_statistics, write_curves
from tiltmeter.sweeps.sites import matching_sites
from tiltmeter.sweeps.trials import (
    ENOUGH,
    StatisticsTrial,
    Trial,
    seconds_of,
    timed,
    try_search,
    try_statistics,
    try_sweep,
)

Wanted = Sweep | Crossings | Comparison

TRIED_SITES = 3
"""At most at so many of several sites, evenly spaced, batches are tried; at the others they take the mean."""

TABLED = 2e7
"""Bytes of the results that tables are tried on."""

COPIES = 4
"""How often pool and curves are in memory at once, while they are merged and written."""


def dry_run(wanted: Wanted, model: ModelGiven, tokens: TokensGiven, out: str | Path | None = None) -> Forecast:
    """Say what a run would measure and estimate its time, memory and disk space, without storing anything.

    The statistics of at most 32 sequences are computed, and two to four batches are measured on the model; their times
    and sizes are extrapolated. That is as noisy as the machine is. Of a batch that takes longer than ten seconds, some
    sequences are tried.

    Args:
        wanted: a sweep, crossings, or the first part of what `make_comparison` returns.
        model: the model: what `load_model` returns or takes.
        tokens: token sequences: a `TokenSet`, or what `load_tokens` takes.
        out: the run directory that the run would use. If it holds a part of the run already, that is taken into
            account.

    Raises:
        TiltmeterError: as the run would, as far as that is seen from a few batches; except that `out` may be in use.
    """
    loaded, sweep = load_model(model), wanted if isinstance(wanted, Sweep) else wanted.sweep
    token_set = tokens_for(loaded, tokens, sweep.sequences_to_load)
    several = isinstance(wanted, Sweep) and names_several(sweep.site)
    if several and sweep.until_ci is not None:
        raise TiltmeterError("Where a sweep stops by itself (until_ci) differs from site to site; give one site.")
    names = [site.name for site in matching_sites(sweep.site, loaded.model)] if several else [sweep.site]
    plans = [
        make_plan(sweep.model_copy(update={"site": name}), loaded.model, token_set, loaded.tokenizer) for name in names
    ]
    folders = [None if out is None else user_path(out) / (plan.site.name if several else "") for plan in plans]
    stored = [_stored(wanted, plan, loaded, folder) for plan, folder in zip(plans, folders, strict=True)]
    chosen = sorted({round(place) for place in np.linspace(0, len(plans) - 1, min(TRIED_SITES, len(plans)))})
    tried = [_try(wanted, plans[index], loaded) for index in chosen]
    return _forecast(plans, stored, tried)


def _identity(wanted: Wanted, plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    if isinstance(wanted, Crossings):
        return crossings_identity(wanted, plan, loaded)
    return comparison_identity(wanted, plan, loaded) if isinstance(wanted, Comparison) else identity(plan, loaded)


def _stored(wanted: Wanted, plan: Plan, loaded: LoadedModel, folder: Path | None) -> set[str]:
    """What the run directory holds already."""
    if folder is None:
        return set()
    plan.check_storable()
    return stored_names(folder, _identity(wanted, plan, loaded))


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
        return len(plan.sweep.path.steps) if self.search is None else float(self.trial.arrays["points"].mean())

    def passes(self, plan: Plan) -> Passes:
        """Forward passes; those of a search as many as the curve with the most points needed."""
        if self.search is None:
            return sweep_passes(plan)
        return search_passes(plan, self.directions(plan), int(self.trial.arrays["points"].max()))

    def perturbed_tokens(self, plan: Plan) -> int:
        """Perturbed tokens of all sequences."""
        return round(len(plan.order) * len(plan.positions.perturbed) * self.directions(plan) * self.points(plan))


class Tried(NamedTuple):
    """What was found by trying a run at a site."""

    plan: Plan
    parts: tuple[Part, ...]
    statistics: float
    """Seconds. `other`: likewise, of hashes, self-checks, compiling kernels, and tables."""
    other: float
    disk: int
    memory: int | None
    device_memory: int | None
    statistics_sequences: int

    @property
    def measuring(self) -> dict[str, float]:
        """Seconds that all sequences take, by what the shards are called."""
        return {part.stored: len(self.plan.order) * part.trial.per_sequence for part in self.parts}


def _try(wanted: Wanted, plan: Plan, loaded: LoadedModel) -> Tried:
    """Try a run at a site."""
    run, device = WeighedRun(), plan.model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    manifest = {"identity": _identity(wanted, plan, loaded), "record": record(plan, loaded, "dry run")}
    run.write_bytes("manifest.json", manifest_bytes(**manifest))
    other = time.perf_counter() - began
    fitted = try_statistics(plan, run)
    began = time.perf_counter()
    check(fitted.ready, run)
    other += time.perf_counter() - began
    before = peak_memory()
    parts = _tried_parts(wanted, fitted.ready)
    after, on_device = peak_memory(), torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    tables, held = _write(fitted.ready, run, parts, manifest)
    more = _pool_growth(plan, fitted)
    share = max(part.trial.usual / part.trial.sequences for part in parts)
    return Tried(
        plan=plan,
        parts=parts,
        statistics=len(for_statistics(plan).ids) * fitted.per_sequence + fitted.once,
        other=other + tables + sum(part.trial.once for part in parts),
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


def _write(ready: Prepared, run: WeighedRun, parts: Sequence[Part], manifest: dict[str, Any]) -> tuple[float, int]:
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
        write_crossings(plan, run, crossing_table(arrays, tuple(map(str, plan.directions))))


def _forecast(plans: Sequence[Plan], stored: Sequence[set[str]], tried: Sequence[Tried]) -> Forecast:
    """The sums over sites; those that were not tried take the mean of the others."""
    plan, parts, sites = plans[0], tried[0].parts, len(plans)
    measuring = {name: fmean(one.measuring[name] for one in tried) for name in tried[0].measuring}
    statistics, other = fmean(one.statistics for one in tried), fmean(one.other for one in tried)
    shards = number_of_shards(plan)
    done = {name: sum(one.startswith(f"{name}-") for here in stored for one in here) for name in measuring}
    without = sum("statistics" not in here for here in stored)
    passes = [part.passes(one) for one in plans for part in parts]
    return Forecast(
        sites=tuple(one.site.name for one in plans),
        sequences=len(plan.order),
        sequence_length=plan.tokens.ids.shape[1],
        perturbed_positions=len(plan.positions.perturbed),
        directions=sum(len(one.directions) for one in plans),
        saes=sum(len(one.saes) + len(one.dictionaries) for one in plans),
        points=parts[0].points(plan),
        searches=len(parts) - 1,
        perturbed_tokens=sum(part.perturbed_tokens(one) for one in plans for part in parts),
        statistics_sequences=len(for_statistics(plan).ids),
        statistics_passes=sum(map(statistics_passes, plans)),
        clean_passes=sum(one.clean for one in passes),
        perturbed_passes=sum(one.perturbed for one in passes),
        ways=tuple(dict.fromkeys(one.model.way(one.site, one.positions.span) for one in plans)),
        statistics_seconds=sites * statistics,
        measuring_seconds=sites * sum(measuring.values()),
        other_seconds=sites * other,
        seconds_left=without * statistics
        + sum((sites - done[name] / shards) * seconds for name, seconds in measuring.items())
        + sites * other,
        memory=_largest([one.memory for one in tried]),
        device_memory=_largest([one.device_memory for one in tried]),
        disk=round(sites * fmean(one.disk for one in tried)),
        shards=sites * len(parts) * shards,
        shards_done=sum(done.values()),
        tried_statistics=tried[0].statistics_sequences,
        tried_sequences=max(part.trial.sequences for part in parts),
        tried_sites=len(tried),
        until_ci=plan.sweep.until_ci is not None,
    )


def _largest(sizes: Sequence[int | None]) -> int | None:
    known = [one for one in sizes if one is not None]
    return max(known) if known else None
