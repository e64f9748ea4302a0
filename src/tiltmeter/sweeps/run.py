"""Run a sweep: directions × path × readouts over token sequences, shard by shard into a run directory.

1. Look up every name (`make_plan`) and open the run directory.
2. Compute the statistics of real activations at the site, once, and run the self-checks.
3. Measure shard after shard (`measure_shard`), all of them or until every mean is precise enough. A finished shard is
   never recomputed.
4. Merge the shards into labelled curves and write the tables.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.analysis.stopping import Watch
from tiltmeter.data.token_set import TokenSet, TokensGiven
from tiltmeter.errors import TiltmeterError
from tiltmeter.models import provenance
from tiltmeter.models.behaviour import check_behaviour
from tiltmeter.models.clean_run import PERTURBED_RUNS
from tiltmeter.models.fingerprint import fingerprint_sha256
from tiltmeter.models.loading import LoadedModel, ModelGiven, load_model, tokens_for
from tiltmeter.models.self_check import check_additive, check_functions, check_head, check_split
from tiltmeter.models.sites import OF_WIDTH_D_MODEL, names_several
from tiltmeter.perturb.bases import Base, build_base
from tiltmeter.perturb.directions import Direction
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.own_directions import bind
from tiltmeter.perturb.paths import Path as PerturbationPath
from tiltmeter.perturb.registry import build_directions
from tiltmeter.perturb.site_statistics import SiteStatistics, fit_statistics
from tiltmeter.perturb.transcoder_directions import TRANSCODER_DIRECTIONS
from tiltmeter.runs import run_directory
from tiltmeter.runs.progress import progress
from tiltmeter.runs.temporary import kept_or_temporary
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes.at_site import DictionaryAtSite, RowsAtSite, SAEAtSite, TranscoderAtSite
from tiltmeter.saes.latent_statistics import LatentStatistics, SAEWithStatistics, fit_latents
from tiltmeter.saes.load_check import LoadCheck, check_on_load
from tiltmeter.saes.transcoder_check import check_transcoder
from tiltmeter.sweeps.cautions import cautions
from tiltmeter.sweeps.measure import check_functions_alone, measure_shard
from tiltmeter.sweeps.plan import Plan, Sweep, make_plan
from tiltmeter.sweeps.sites import matching_sites, sweep_sites

SAES_A_PASS = 4
"""Number of SAEs whose latent statistics are computed in one pass over the tokens."""

_log = logging.getLogger(__name__)

_checked: dict[tuple[Any, ...], LoadCheck] = {}
"""Cache of load checks: a study uses one SAE in many sweeps, and each check costs forward passes."""


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
    statistics = _statistics(plan, run)
    plan = replace(plan, massive_above=statistics.massive.limit)
    saes = _latents(plan, run)
    centre = partial(plan.model.centre, site=plan.site)
    own = {name: bind(name, one, statistics, centre) for name, one in plan.own.items()}
    directions = build_directions(plan.directions, statistics, own, {**saes, **plan.dictionaries})
    base = build_base(plan.base, statistics, saes)
    path = plan.sweep.path.resolved(statistics.pair_distance)
    check_split(plan.model, plan.model.start(plan.tokens.ids[:2], plan.site, (), plan.positions.span))
    for site in {plan.site, *(readout.site for readout in plan.readouts if readout.site)}:
        check_additive(plan.model, plan.tokens.ids[:2], site)
    check_head(plan.model, plan.tokens.ids[: plan.sweep.sequences])
    check_functions(plan.model, plan.tokens.ids[:2], plan.site, plan.readouts, plan.positions)
    check_functions_alone(plan, directions, base)
    check_behaviour(run, plan.model, plan.tokens.ids[:2])
    return Prepared(plan, statistics, saes, directions, path, base)


def _statistics(plan: Plan, run: run_directory.Run) -> SiteStatistics:
    if (arrays := run.load("statistics")) is None:
        some = _for_statistics(plan)
        sweep = plan.sweep
        fitted = fit_statistics(
            plan.model,
            some,
            plan.site,
            sweep.bos,
            sweep.pool,
            sweep.seed,
            positions=plan.statistics_positions,
            massive=sweep.massive,
        )
        run.save("statistics", arrays := fitted.to_arrays())
    found = SiteStatistics.from_arrays(arrays)
    for caution in cautions(plan, found):
        _log.warning("warning: %s", caution)
    return found


def _latents(plan: Plan, run: run_directory.Run) -> dict[str, SAEWithStatistics]:
    """Bind every SAE to the site, with latent statistics if a direction or the base needs them.

    Each pass over the tokens covers only a few SAEs, so that a killed run loses at most one pass.
    """
    stored = {label: f"latents-{index:03d}" for index, label in enumerate(plan.saes) if label in plan.counted_saes}
    found = {label: run.load(name) for label, name in stored.items()}
    missing = [label for label, arrays in found.items() if arrays is None]
    above = plan.sweep.massive.largest_counted(plan.massive_above)
    groups = [missing[begin : begin + SAES_A_PASS] for begin in range(0, len(missing), SAES_A_PASS)]
    for labels in groups:
        some = {label: plan.saes[label] for label in labels}
        fitted = fit_latents(plan.model, _for_statistics(plan), plan.site, plan.sweep.bos, some, above)
        for label, statistics in fitted.items():
            run.save(stored[label], arrays := statistics.to_arrays())
            found[label] = arrays
    counted = {label: LatentStatistics.from_arrays(arrays) for label, arrays in found.items() if arrays is not None}
    return {label: SAEWithStatistics(at, counted.get(label), plan.sweep.synthesis) for label, at in plan.saes.items()}


def _for_statistics(plan: Plan) -> TokenSet:
    return replace(plan.tokens, ids=plan.tokens.ids[: plan.sweep.statistics_sequences])


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
    attrs = _attrs(plan, ready.statistics, ready.saes, run_directory.read_manifest(run.path))
    result = result.assign_attrs(attrs | _ending(watch))
    check_measured(int(result.tokens.sum()))
    return result


def _measure(ready: Prepared, run: run_directory.Run, watch: Watch | None) -> list[xr.Dataset]:
    """Measure the shards that are not stored yet, until the watch says stop, and label all as curves."""
    plan, measured = ready.plan, []
    shards = range(0, len(plan.order), plan.sweep.shard)
    for begin in progress(shards, "shards, at most" if watch else "shards"):
        measured.append(begin)
        shard = _shard(ready, run, begin)
        # Ask here even if later shards are stored: where a run stops must not depend on where it was killed.
        if watch is not None and watch.look(shard):
            break
    # Read again from disk: small arrays kept in memory between shards would fragment the heap, so that the memory which
    # each shard frees could not be reused by the next.
    return [_shard(ready, run, begin) for begin in measured]


def _shard(ready: Prepared, run: run_directory.Run, begin: int) -> xr.Dataset:
    """Load the curves of a shard from the run, or measure them."""
    plan = ready.plan
    sequences = plan.order[begin : begin + plan.sweep.shard]
    name = f"shard-{begin // plan.sweep.shard:05d}"
    if (arrays := run.load(name)) is None:
        arrays = measure_shard(plan, ready.directions, ready.path, sequences, ready.base)
        run.save(name, arrays)
    positions = plan.positions.read if plan.sweep.keep_positions else None
    axes = curves.Axes(tuple(map(str, plan.directions)), ready.path.steps, ready.path.units, sequences, positions)
    readouts = {key: arrays[key] for key in (*(readout.name for readout in plan.readouts), "length")}
    labels = {readout.name: readout.label for readout in plan.readouts if readout.label is not None}
    return curves.build(readouts, arrays["tokens"], axes, {}, labels)


def identity(plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    """Collect everything that determines the numbers of a run."""
    used: dict[str, RowsAtSite] = {**plan.saes, **plan.dictionaries}
    return provenance.identity(loaded, plan.tokens) | {
        "sweep": plan.sweep.model_dump(mode="json", exclude={"saes"})
        | {"site": plan.site.name, "readouts": [readout.name for readout in plan.readouts]},
        "saes": {label: at.sae.about.sha256 for label, at in used.items()},
        # Stored arrays follow these orders, so the same SAEs in another order are a different run.
        "order": {"directions": [str(name) for name in plan.directions], "saes": list(used)},
        "vectors": {str(name): one.identity for name, one in plan.own.items()},
        "readout_functions": {one.name: one.own.identity for one in plan.readouts if one.own is not None},
    }


def record(plan: Plan, loaded: LoadedModel, purpose: str) -> dict[str, Any]:
    """Collect facts for readers of the manifest that do not affect the numbers."""
    centred = plan.model.centred and plan.site.kind in OF_WIDTH_D_MODEL
    model = fingerprint_sha256(loaded.model) if plan.saes else ""
    return provenance.record(loaded, plan.tokens) | {
        "purpose": purpose,
        "policies": {
            "stream": "centred: x minus its mean over d_model" if centred else "raw",
            "kl": "KL(clean ‖ perturbed), nats, from the difference of logits, of terms that cannot cancel",
            "boundary positions": plan.sweep.bos.model_dump(),
            "massive activations": plan.sweep.massive.model_dump(),
            "perturbed runs": PERTURBED_RUNS[plan.model.way(plan.site, plan.positions.span)],
            "perturbed positions": list(plan.positions.perturbed),
            "read positions": list(plan.positions.read),
        },
        "saes": {label: _sae_record(plan, model, at) for label, at in progress(list(plan.saes.items()), "load check")}
        | {label: _dictionary_record(plan, label, at) for label, at in plan.dictionaries.items()},
    }


def _sae_record(plan: Plan, model: str, at: SAEAtSite) -> dict[str, Any]:
    """Describe an SAE, including its load check on the model of this hash, and log the check's warnings."""
    place = (at.sae.about.sha256, at.site, plan.sweep.stream, model, plan.tokens.sha256())
    if place not in _checked:
        _checked[place] = check_on_load(plan.model, at, plan.tokens)
        for warning in _checked[place].warnings:
            _log.warning("warning: %s", warning)
    return _about(at) | {"load_check": _checked[place].to_json()}


def _dictionary_record(plan: Plan, label: str, at: DictionaryAtSite) -> dict[str, Any]:
    """Describe a dictionary, including the load check of a transcoder whose error is measured; log its warnings."""
    found = _about(at) | {"what": at.what}
    asked = any(name.argument == label and name.kind in TRANSCODER_DIRECTIONS for name in plan.directions)
    if not asked or not isinstance(at, TranscoderAtSite):
        return found
    check = check_transcoder(plan.model, at, plan.tokens)
    for warning in check.warnings:
        _log.warning("warning: %s", warning)
    return found | {"load_check": check.to_json()}


def _about(at: RowsAtSite) -> dict[str, Any]:
    return {name: value for name, value in asdict(at.sae.about).items() if value is not None}


def _attrs(
    plan: Plan, statistics: SiteStatistics, saes: dict[str, SAEWithStatistics], manifest: dict[str, Any]
) -> dict[str, str]:
    """Collect the provenance stored with the curves. It has no timestamps, so equal runs write equal files."""
    return {
        "model": plan.model.name,
        "site": plan.site.name,
        "tokens": plan.tokens.name,
        "positions": plan.sweep.positions,
        "pair_distance": f"{statistics.pair_distance:.6g}",
        "mean_norm": f"{statistics.norm:.6g}",
        "massive": json.dumps(statistics.massive._asdict()),
        "covariance": json.dumps(statistics.spectrum._asdict()),
        "cautions": json.dumps(cautions(plan, statistics)),
        "statistics": f"{statistics.count} activations of width {len(statistics.mean)}; pool of {len(statistics.pool)}",
        "base": plan.sweep.base,
        "saes": json.dumps(
            {label: _sae_attrs(sae, manifest["record"]["saes"][label]) for label, sae in saes.items()}
            | {label: {"kind": None, "latents": at.size} for label, at in plan.dictionaries.items()}
        ),
        "manifest": json.dumps({key: manifest[key] for key in ("identity", "record")}, sort_keys=True),
    }


def _sae_attrs(sae: SAEWithStatistics, recorded: dict[str, Any]) -> dict[str, Any]:
    """Collect an SAE's metrics for figures: from its latent statistics if computed, else from the load check."""
    kind, size, latents = sae.at.sae.about.kind, sae.at.size, sae.counted
    if latents is None:
        figures = recorded["load_check"]["metrics"]
        wanted = ("l0", "explained_variance", "distance", "tokens")
        return {"kind": kind, "latents": size} | {name: figures[name] for name in wanted}
    return {
        "kind": kind,
        "l0": latents.l0,
        "explained_variance": latents.explained_variance,
        "distance": latents.distance,
        "alive": int(latents.alive.sum()),
        "latents": size,
        "tokens": latents.count,
    }
