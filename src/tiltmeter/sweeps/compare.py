"""Compare vectors with fair baselines: measure them, and say where each stands.

The curves are those of a sweep. The lengths at which KL reaches a budget are searched along the vectors, and along
baselines that are drawn for each token anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.analysis.bisection import CrossingTarget
from tiltmeter.analysis.standing import Verdict, curve_tests, draws_among, standing_table, stem, verdict, with_opposites
from tiltmeter.data.token_set import TokenSet, TokensGiven
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel, ModelGiven, load_model, tokens_for
from tiltmeter.perturb.held import OF_STATISTICS
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.paths import Straight
from tiltmeter.perturb.registry import build_directions
from tiltmeter.runs import run_directory
from tiltmeter.saes.at_site import RowsAtSite
from tiltmeter.saes.names import labelled, place, read_saes
from tiltmeter.sweeps.comparison import (
    BUDGETS,
    LENGTHS,
    Comparison,
    all_directions,
    choose_baselines,
    number_of_draws,
    read_vectors,
    refuse_settings,
)
from tiltmeter.sweeps.crossings import Search, crossing_summary, crossing_table, search_shards, span
from tiltmeter.sweeps.known import refuse_other_run
from tiltmeter.sweeps.plan import Plan, Sweep, make_plan
from tiltmeter.sweeps.records import identity, record
from tiltmeter.sweeps.run import Prepared, measure_curves, opened, prepare, write_curves

SEQUENCES = 64

LONGEST, GRID = 2.0, 128
"""Up to how many pair distances a budget is searched, and in how many steps."""


@dataclass(frozen=True)
class Compared:
    """What a comparison found."""

    verdicts: tuple[Verdict, ...]
    """One for each vector and its opposite."""
    standings: pd.DataFrame
    """The `standing_table` of each `vector`, by `length` in pair distances, and `p_curve`, the p-value against each
    baseline over all lengths."""
    budgets: pd.DataFrame
    """The length, in pair distances, at which KL reaches each budget: the median over sequences, its 95 % interval, and
    how many sequences do not reach it within two pair distances. Baselines are drawn for each token anew."""
    curves: xr.Dataset
    """The curves of all vectors and draws: KL, lengths in L2."""

    def __str__(self) -> str:
        """The verdicts."""
        return "\n".join(one.sentence for one in self.verdicts)


def compare(
    model: ModelGiven,
    tokens: TokensGiven,
    site: str,
    vectors: Any,
    *,
    out: str | Path | None = None,
    sae: Any = None,
    baselines: Sequence[str] | None = None,
    draws: int | None = None,
    lengths: Sequence[float] = LENGTHS,
    budgets: Sequence[float] = BUDGETS,
    sequences: int | None = None,
    positions: str = "last",
    **settings: Any,
) -> Compared:
    """Measure whether vectors change the output more, or less, than random vectors of the same length.

    Args:
        model: the model: what `load_model` returns or takes.
        tokens: token sequences: a `TokenSet`, or what `load_tokens` takes. The first `sequences` are measured, the
            statistics may use more.
        site: where the vectors are added.
        vectors: labels, and vectors [d_site] (tensors, arrays) or files with one each. Each is tested with both signs.
        out: the run directory; an interrupted comparison goes on there. With None, nothing is left on disk.
        sae: an SAE (object or name). Random rows of its decoder are then a baseline, too.
        baselines: some of `isotropic`, `cov-random-mixture`, `real-mixture`, `permutation` (of the vector's
            coordinates) and `sae-feature`; all by default.
        draws: random vectors of each baseline; by default 99, or as many as all these tests need at the 5 % level.
        lengths: how far activations are moved, in pair distances.
        budgets: values of KL, in nats; the length that reaches each is searched.
        sequences: how many are measured; by default 64, or all there are.
        positions: the position that is perturbed and read. Several are perturbed together.
        settings: further fields of `Sweep`: `seed`, `stream`, `statistics_sequences`, `bos`, `massive` and others.

    Raises:
        TiltmeterError: invalid input; `out` belongs to another run; the model cannot be split.
    """
    refuse_other_comparison(
        out, site, vectors, lengths=lengths, budgets=budgets, sequences=sequences, positions=positions, **settings
    )
    wanted, loaded, token_set = make_comparison(
        model,
        tokens,
        site,
        vectors,
        sae=sae,
        baselines=baselines,
        draws=draws,
        lengths=lengths,
        budgets=budgets,
        sequences=sequences,
        positions=positions,
        **settings,
    )
    return run_comparison(wanted, loaded, token_set, out)


def refuse_other_comparison(
    out: str | Path | None,
    site: str,
    vectors: Any,
    *,
    lengths: Sequence[float] = LENGTHS,
    budgets: Sequence[float] = BUDGETS,
    sequences: int | None = None,
    positions: str = "last",
    **settings: Any,
) -> None:
    """Refuse a run directory with results of another comparison, before a model is loaded: arguments as of `compare`.

    Raises:
        TiltmeterError: the message says what differs; a setting does not exist or has a wrong value.
    """
    refuse_settings(settings)
    counted = {} if sequences is None else {"sequences": sequences}
    path = Straight(lengths=lengths, unit="pair-distance")
    sweep = Sweep(site=site, path=path, positions=positions, **counted, **settings)
    refuse_other_run(out, sweep, compare={"vectors": [*vectors], "budgets": [*budgets]})


def make_comparison(
    model: ModelGiven,
    tokens: TokensGiven,
    site: str,
    vectors: Any,
    *,
    sae: Any = None,
    baselines: Sequence[str] | None = None,
    draws: int | None = None,
    lengths: Sequence[float] = LENGTHS,
    budgets: Sequence[float] = BUDGETS,
    sequences: int | None = None,
    positions: str = "last",
    **settings: Any,
) -> tuple[Comparison, LoadedModel, TokenSet]:
    """The configuration of a comparison, and the model and tokens that it is measured on: arguments as of `compare`.

    Raises:
        TiltmeterError: invalid input.
    """
    refuse_settings(settings)
    given, path = read_vectors(vectors, site), Straight(lengths=lengths, unit="pair-distance")
    if 0 in path.steps:
        raise TiltmeterError("The lengths have a 0, where nothing is moved; give positive ones, in pair distances.")
    most = SEQUENCES if sequences is None else sequences
    sweep = Sweep(site=site, path=path, sequences=most, positions=positions, **settings)
    loaded = load_model(model)
    token_set = tokens_for(loaded, tokens, sweep.sequences_to_load)
    if sequences is None:
        sweep = sweep.model_copy(update={"sequences": min(SEQUENCES, len(token_set.ids))})
    at = None if sae is None else _place(sae, loaded, sweep, token_set)
    chosen = choose_baselines(baselines, at is not None)
    directions = all_directions(given, chosen, number_of_draws(draws, len(given)), at, sweep.seed)
    sweep = sweep.model_copy(update={"directions": directions})
    return Comparison(sweep=sweep, vectors=tuple(given), baselines=chosen, budgets=budgets), loaded, token_set


def run_comparison(wanted: Comparison, loaded: LoadedModel, tokens: TokenSet, out: str | Path | None) -> Compared:
    """Measure a comparison and store curves, standings, verdicts and budgets in the run directory `out`, if any.

    Raises:
        TiltmeterError: as `compare`.
    """
    plan = make_plan(wanted.sweep, loaded.model, tokens, loaded.tokenizer)
    with opened(plan, out, comparison_identity(wanted, plan, loaded), partial(record, plan, loaded, "compare")) as run:
        ready = prepare(plan, run)
        found = measure_curves(ready, run, None)
        standings, verdicts = stand(wanted, found)
        parts = [_budget(wanted, ready, run, which) for which in range(len(wanted.budgets))]
        budgets = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"direction": []})
        write_curves(run, found)
        for name, table in (("standings", standings), ("budgets", budgets), ("verdicts", pd.DataFrame(verdicts))):
            curves.write_table(run, name, table)
    return Compared(tuple(verdicts), standings, budgets, found)


def comparison_identity(wanted: Comparison, plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    """Collect everything that determines the numbers of a comparison."""
    return identity(plan, loaded) | {"compare": wanted.model_dump(mode="json", exclude={"sweep"})}


def stand(wanted: Comparison, found: xr.Dataset) -> tuple[pd.DataFrame, list[Verdict]]:
    """Where each vector and its opposite stand among the draws, and the verdict on each."""
    kl, tables, verdicts = found.kl.transpose("direction", "step", "sequence"), [], []
    names, lengths = [str(name) for name in kl.direction.values], np.asarray(wanted.sweep.path.steps)
    tested = with_opposites(wanted.vectors)
    for vector in tested:
        values = kl.values[names.index(vector)]
        stems = {baseline: stem(baseline, vector, wanted.vectors) for baseline in wanted.baselines}
        draws = {baseline: kl.values[draws_among(names, first)] for baseline, first in stems.items()}
        table, tests = standing_table(values, draws, lengths), curve_tests(values, draws)
        verdicts.append(verdict(vector, tests, table, len(tested), kl.sizes["sequence"]))
        p_curve = table.baseline.map({test.baseline: test.p for test in tests})
        table.insert(0, "vector", vector)
        tables.append(table.rename(columns={"step": "length"}).assign(p_curve=p_curve))
    return pd.concat(tables, ignore_index=True), verdicts


def _place(sae: Any, loaded: LoadedModel, sweep: Sweep, tokens: TokenSet) -> RowsAtSite:
    model = loaded.model.measured_in(sweep.stream)
    where = model.site(sweep.site)
    ((_, one),) = labelled(read_saes((sae,) if isinstance(sae, str) else {"sae": sae}), where).items()
    return place(one, model, where, tokens)


def _budget(wanted: Comparison, ready: Prepared, run: run_directory.Run, which: int) -> pd.DataFrame:
    """The lengths at which KL reaches a budget along the vectors, and along baselines drawn for each token."""
    distance, search = ready.statistics.pair_distance, budget_search(wanted, ready, which)
    found = search_shards(ready, run, search)
    crossings = crossing_table(found, tuple(map(str, search.directions)), ready.plan.tokens.document)
    summary = crossing_summary(crossings, span(ready.plan), len(search.path.steps))
    table = summary[["direction", "median", "median_low", "median_high", "n", "censored", "missing"]]
    lengths = {column: table[column] / distance for column in ("median", "median_low", "median_high")}
    return table.assign(**lengths, budget=wanted.budgets[which])


def budget_search(wanted: Comparison, ready: Prepared, which: int) -> Search:
    """The search for the lengths at which KL reaches a budget."""
    budget, distance = wanted.budgets[which], ready.statistics.pair_distance
    own = {name: ready.directions[name] for name in map(DirectionName, with_opposites(wanted.vectors))}
    random = [DirectionName(name) for name in wanted.baselines if name in OF_STATISTICS]
    directions = own | build_directions(random, ready.statistics, {})
    path = Straight(lengths=tuple(np.linspace(0, LONGEST * distance, GRID + 1).tolist()))
    goal, shown = CrossingTarget(threshold=budget), f"lengths for a KL of {budget:g}"
    return Search(goal, directions, path, f"budget-{which}", shown)
