"""Run a sweep: directions × path × readouts over token sequences, shard by shard into a run directory.

1. Look up every name (`make_plan`) and open the run directory.
2. Compute the statistics of real activations at the site, once, and run the self-checks.
3. Measure shard after shard (`measure_shard`), all of them or until every mean is precise enough. A finished shard is
   never recomputed.
4. Merge the shards into labelled curves and write the tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.analysis.stopping import Watch
from tiltmeter.data.token_set import TokenSet, TokensGiven
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.behaviour import check_behaviour
from tiltmeter.models.loading import LoadedModel, ModelGiven, load_model, tokens_for
from tiltmeter.models.self_check import check_additive, check_functions, check_head, check_split
from tiltmeter.models.sites import names_several
from tiltmeter.perturb.bases import Base, build_base
from tiltmeter.perturb.directions import Direction
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.own_directions import bind
from tiltmeter.perturb.paths import Path as PerturbationPath
from tiltmeter.perturb.registry import build_directions
from tiltmeter.perturb.site_statistics import SiteStatistics, fit_statistics
from tiltmeter.runs import run_directory
from tiltmeter.runs.progress import Steps, counted_steps
from tiltmeter.runs.temporary import kept_or_temporary
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes.latent_statistics import LatentStatistics, SAEWithStatistics, fit_latents
from tiltmeter.sweeps.cautions import cautions
from tiltmeter.sweeps.known import refuse_other_run
from tiltmeter.sweeps.measure import Arrays, check_functions_alone, in_batches, measure_shard, unseen
from tiltmeter.sweeps.plan import Plan, Sweep, make_plan
from tiltmeter.sweeps.records import attributes, identity, record
from tiltmeter.sweeps.sites import matching_sites, sweep_sites

SAES_A_PASS = 4
"""Number of SAEs whose latent statistics are computed in one pass over the tokens."""

_log = logging.getLogger(__name__)


def run_sweep(
    sweep: Sweep, model: ModelGiven, tokens: TokensGiven, out: str | Path | None = None, purpose: str = "sweep"
) -> xr.Dataset:
    """Measure a sweep and store it in the run directory `out`, resuming an interrupted run.

    Args:
        sweep: configuration of the sweep.
        model: the model: what `load_model` returns or takes.
        tokens: token sequences: a `TokenSet`, or what `load_tokens` takes; as many are loaded as are used.
            The first are measured; the statistics may use more. With `until_ci`, the first are measured in random order
            until every mean is precise enough, with a warning if they run out before.
        out: the run directory, created if it does not exist. With None, nothing is left on disk, so an interrupted run
            cannot be resumed.
        purpose: `sweep`, or the study figure it belongs to (`lee2024/1`), for the report.

    Returns:
        The curves. They are stored in `out` as `curves.nc`, and their means and intervals as `summary.csv` and
        `summary.parquet`. If the sweep names several sites (`resid_pre:*`), each has a run directory in `out`, and the
        curves have a dimension `site`.

    Raises:
        TiltmeterError: invalid input; `out` is in use or belongs to another run; the model cannot be split.
    """
    refuse_other_run(out, sweep)
    loaded = load_model(model)
    token_set = tokens_for(loaded, tokens, sweep.sequences_to_load)
    if names_several(sweep.site):
        one = partial(_run_at_one_site, loaded=loaded, tokens=token_set, purpose=purpose)
        sites = matching_sites(sweep.site, loaded.model)
        return sweep_sites(sweep, sites, one, None if out is None else user_path(out))
    return _run_at_one_site(sweep, out, loaded, token_set, purpose)


def _run_at_one_site(
    sweep: Sweep, out: str | Path | None, loaded: LoadedModel, tokens: TokenSet, purpose: str
) -> xr.Dataset:
    plan = make_plan(sweep, loaded.model, tokens, loaded.tokenizer)
    with opened(plan, out, identity(plan, loaded), partial(record, plan, loaded, purpose)) as run:
        result = measure_curves(prepare(plan, run), run, _watch(plan))
        if out is not None:
            write_curves(run, result)
    return result


@contextmanager
def opened(
    plan: Plan, out: str | Path | None, identity: Mapping[str, Any], record: Callable[[], Mapping[str, Any]]
) -> Iterator[run_directory.Run]:
    """Open the run directory `out`; with None, a temporary one, in which anything can be measured.

    Raises:
        TiltmeterError: `out` is in use or belongs to another run, or the run could not be resumed from it.
    """
    if out is not None:
        plan.check_storable()
    with kept_or_temporary(out) as path, run_directory.open_run(path, identity, record) as run:
        yield run


def write_curves(run: run_directory.Run, result: xr.Dataset) -> None:
    """Store curves and their summary."""
    table = curves.summary(result)
    run.write_bytes("curves.nc", curves.to_netcdf(result))
    curves.write_table(run, "summary", table)


class Prepared(NamedTuple):
    """Objects built once per run, before the first measurement."""

    plan: Plan
    """The plan, with the norm above which activations are massive."""
    statistics: SiteStatistics
    saes: dict[str, SAEWithStatistics]
    directions: dict[DirectionName, Direction]
    path: PerturbationPath
    """The path in absolute lengths or angles."""
    base: Base | None


def check_measured(tokens: int) -> None:
    """Refuse a run in which no token was averaged.

    Raises:
        TiltmeterError: `tokens` is 0.
    """
    if not tokens:
        raise TiltmeterError(
            "Nothing was measured: at these positions, with these rules for boundary positions, no token was both "
            "perturbed and averaged, or no direction leads away from x; change --positions, --bos-… or --direction."
        )


def prepare(plan: Plan, run: run_directory.Run) -> Prepared:
    """Compute or load the statistics, build directions and base, and run the self-checks.

    Raises:
        TiltmeterError: the model cannot be split at the site, the site's activation does not reach the stream, or the
            model is not the one that the run was begun with.
    """
    statistics = stored_statistics(plan, run)
    for caution in cautions(plan, statistics):
        _log.warning("warning: %s", caution)
    plan = replace(plan, massive_above=statistics.massive.limit)
    ready = build(plan, statistics, stored_latents(plan, run))
    check(ready, run)
    return ready


def build(plan: Plan, statistics: SiteStatistics, saes: dict[str, SAEWithStatistics]) -> Prepared:
    """Build directions, base and path from the statistics."""
    centre = partial(plan.model.centre, site=plan.site)
    own = {name: bind(name, one, statistics, centre) for name, one in plan.own.items()}
    directions = build_directions(plan.directions, statistics, own, {**saes, **plan.dictionaries})
    base = build_base(plan.base, statistics, saes)
    path = plan.sweep.path.resolved(statistics.pair_distance)
    return Prepared(plan, statistics, saes, directions, path, base)


def check(ready: Prepared, run: run_directory.Run) -> None:
    """Run the self-checks.

    Raises:
        TiltmeterError: as `prepare`.
    """
    plan = ready.plan
    check_split(plan.model, plan.model.start(plan.tokens.ids[:2], plan.site, (), plan.positions.span))
    for site in {plan.site, *(readout.site for readout in plan.readouts if readout.site)}:
        check_additive(plan.model, plan.tokens.ids[:2], site)
    check_head(plan.model, plan.tokens.ids[: plan.sweep.sequences])
    check_functions(plan.model, plan.tokens.ids[:2], plan.site, plan.readouts, plan.positions)
    check_functions_alone(plan, ready.directions, ready.base)
    check_behaviour(run, plan.model, plan.tokens.ids[:2])


def stored_statistics(plan: Plan, run: run_directory.Run) -> SiteStatistics:
    """Load the statistics of the site from the run, or compute and store them."""
    if (arrays := run.load("statistics")) is None:
        sweep = plan.sweep
        fitted = fit_statistics(
            plan.model,
            for_statistics(plan),
            plan.site,
            sweep.bos,
            sweep.pool,
            sweep.seed,
            positions=plan.statistics_positions,
            massive=sweep.massive,
        )
        run.save("statistics", arrays := fitted.to_arrays())
    return SiteStatistics.from_arrays(arrays)


def stored_latents(plan: Plan, run: run_directory.Run) -> dict[str, SAEWithStatistics]:
    """Bind every SAE to the site, with latent statistics if a direction or the base needs them.

    Each pass over the tokens covers only a few SAEs, so that a killed run loses at most one pass.
    """
    stored = {label: f"latents-{index:03d}" for index, label in enumerate(plan.saes) if label in plan.counted_saes}
    found = {label: run.load(name) for label, name in stored.items()}
    above = plan.sweep.massive.largest_counted(plan.massive_above)
    for labels in passes_over_saes([label for label, arrays in found.items() if arrays is None]):
        some = {label: plan.saes[label] for label in labels}
        fitted = fit_latents(plan.model, for_statistics(plan), plan.site, plan.sweep.bos, some, above)
        for label, statistics in fitted.items():
            run.save(stored[label], arrays := statistics.to_arrays())
            found[label] = arrays
    counted = {label: LatentStatistics.from_arrays(arrays) for label, arrays in found.items() if arrays is not None}
    return {label: SAEWithStatistics(at, counted.get(label), plan.sweep.synthesis) for label, at in plan.saes.items()}


def passes_over_saes(labels: Sequence[str]) -> list[Sequence[str]]:
    """The SAEs whose latent statistics are computed together, for each pass over the tokens."""
    return in_batches(labels, SAES_A_PASS)


def for_statistics(plan: Plan) -> TokenSet:
    """The sequences that serve the statistics."""
    return plan.tokens.first(plan.sweep.statistics_sequences)


def _watch(plan: Plan) -> Watch | None:
    """Return the stopping rule of a sweep with `until_ci`."""
    goal = plan.sweep.until_ci
    return None if goal is None else Watch(goal, plan.sweep.sequences, plan.tokens.ids.shape[1])


def _ending(watch: Watch | None) -> dict[str, str]:
    """Describe how a sweep with `until_ci` ended, as an attribute of its curves."""
    if watch is None or watch.stopped is None:
        return {}
    if not watch.stopped.reached:
        _log.warning("warning: %s", watch.stopped.sentence)
    return {"stopping": watch.stopped.to_json()}


def measure_curves(ready: Prepared, run: run_directory.Run, watch: Watch | None) -> xr.Dataset:
    """Measure what is not stored yet, and merge all into curves, with their provenance.

    Raises:
        TiltmeterError: activations or a readout are not finite; nothing was measured.
    """
    plan = ready.plan
    parts = _measure(ready, run, watch)
    result = curves.merge(parts, plan.order[: sum(part.sizes["sequence"] for part in parts)])
    attrs = attributes(plan, ready.statistics, ready.saes, run_directory.read_manifest(run.path))
    result = result.assign_attrs(attrs | _ending(watch))
    check_measured(int(result.tokens.sum()))
    return result


def _measure(ready: Prepared, run: run_directory.Run, watch: Watch | None) -> list[xr.Dataset]:
    """Measure the shards that are not stored yet, until the watch says stop, and label all as curves."""
    plan, measured = ready.plan, []
    shards = range(0, len(plan.order), plan.sweep.shard)
    points = len(plan.order) * len(ready.directions) * len(ready.path.steps)
    with counted_steps(points, "points, at most" if watch else "points") as steps:
        for begin in shards:
            measured.append(begin)
            shard = _shard(ready, run, begin, steps)
            # Ask here even if later shards are stored: where a run stops must not depend on where it was killed.
            if watch is not None and watch.look(shard):
                break
    # Read again from disk: small arrays kept in memory between shards would fragment the heap, so that the memory which
    # each shard frees could not be reused by the next.
    return [_shard(ready, run, begin) for begin in measured]


def _shard(ready: Prepared, run: run_directory.Run, begin: int, steps: Steps | None = None) -> xr.Dataset:
    """Load the curves of a shard from the run, or measure them; `steps` counts their points."""
    plan = ready.plan
    sequences = plan.order[begin : begin + plan.sweep.shard]
    name = f"shard-{begin // plan.sweep.shard:05d}"
    if (arrays := run.load(name)) is None:
        take = unseen if steps is None else steps.take
        arrays = measure_shard(plan, ready.directions, ready.path, sequences, ready.base, take)
        run.save(name, arrays)
    elif steps is not None:
        steps.skip(len(sequences) * len(ready.directions) * len(ready.path.steps))
    return as_curves(ready, arrays, sequences, plan.directions)


def as_curves(
    ready: Prepared, arrays: Arrays, sequences: Sequence[int], directions: Sequence[DirectionName]
) -> xr.Dataset:
    """Label what `measure_shard` returned."""
    plan = ready.plan
    positions = plan.positions.read if plan.sweep.keep_positions else None
    documents = plan.tokens.document[np.asarray(sequences)]
    names = tuple(map(str, directions))
    axes = curves.Axes(names, ready.path.steps, ready.path.units, sequences, positions, documents.tolist())
    readouts = {key: arrays[key] for key in (*(readout.name for readout in plan.readouts), "length")}
    labels = {readout.name: readout.label for readout in plan.readouts if readout.label is not None}
    return curves.build(readouts, arrays["tokens"], axes, {}, labels)
