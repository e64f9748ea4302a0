"""What a run would take, found by trying a few of its batches: nothing is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from tiltmeter.data.token_set import TokensGiven
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel, ModelGiven, load_model, tokens_for
from tiltmeter.models.sites import names_several
from tiltmeter.runs.run_directory import stored_names
from tiltmeter.runs.user_paths import user_path
from tiltmeter.sweeps.counts import number_of_shards, statistics_passes
from tiltmeter.sweeps.forecast import Forecast
from tiltmeter.sweeps.plan import Plan, Sweep, make_plan
from tiltmeter.sweeps.run import for_statistics
from tiltmeter.sweeps.sites import matching_sites
from tiltmeter.sweeps.tried import Tried, Wanted, identity_of, try_run

T = TypeVar("T")

TRIED_SITES = 3
"""At most at so many of several sites, evenly spaced, batches are tried; the others take their mean."""


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
    return forecast_of(plans, stored, [try_run(wanted, one, loaded) for one in evenly(plans, TRIED_SITES)])


def _stored(wanted: Wanted, plan: Plan, loaded: LoadedModel, folder: Path | None) -> set[str]:
    """What the run directory holds already."""
    if folder is None:
        return set()
    plan.check_storable()
    return stored_names(folder, identity_of(wanted, plan, loaded))


def evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of these, evenly spaced; the one in the middle, if it is one."""
    number = min(most, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * number)] for index in range(number)]


def forecast_of(plans: Sequence[Plan], stored: Sequence[set[str]], tried: Sequence[Tried]) -> Forecast:
    """The sums over runs of one kind, at several sites; those that were not tried take the mean of the others.

    Args:
        plans: of all runs; they have equally many sequences and directions.
        stored: the names of the shards that each has already.
        tried: what was found by trying some of them.
    """
    plan, parts, sites = plans[0], tried[0].parts, len(plans)
    measuring = {name: fmean(one.measuring[name] for one in tried) for name in tried[0].measuring}
    statistics = fmean(one.statistics for one in tried)
    other = sites * fmean(one.other for one in tried) + sum(one.once for one in tried)
    shards = number_of_shards(plan)
    done = {name: sum(one.startswith(f"{name}-") for here in stored for one in here) for name in measuring}
    to_fit = sum("statistics" not in here for here in stored)
    to_measure = {name: (sites - done[name] / shards) * seconds for name, seconds in measuring.items()}
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
        other_seconds=other,
        seconds_left=to_fit * statistics + sum(to_measure.values()) + other,
        memory=largest([one.memory for one in tried]),
        device_memory=largest([one.device_memory for one in tried]),
        disk=round(sites * fmean(one.disk for one in tried)),
        shards=sites * len(parts) * shards,
        shards_done=sum(done.values()),
        tried_statistics=tried[0].statistics_sequences,
        tried_sequences=max(part.trial.sequences for part in parts),
        tried_sites=len(tried),
        until_ci=plan.sweep.until_ci is not None,
    )


def largest(sizes: Iterable[int | None]) -> int | None:
    """The largest of the sizes that are known."""
    known = [one for one in sizes if one is not None]
    return max(known) if known else None
