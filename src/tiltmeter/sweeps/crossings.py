"""Run crossings: find by bisection where each sequence's readout crosses a threshold along each direction.

Like a sweep, it runs shard by shard into a run directory, but it measures only the points that `bisection` requests.
`docs/crossings.md` states what is guaranteed for a curve that crosses the threshold more than once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int
from pydantic import model_validator

from tiltmeter.analysis import curves
from tiltmeter.analysis.bisection import CrossingTarget
from tiltmeter.analysis.intervals import median_interval
from tiltmeter.analysis.shape_tables import shape_column, shape_summary
from tiltmeter.data.token_set import TokensGiven
from tiltmeter.models.loading import LoadedModel, ModelGiven, load_model, tokens_for
from tiltmeter.perturb.directions import Direction
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.paths import Sphere, Straight, Substitute
from tiltmeter.runs import run_directory
from tiltmeter.runs.config import Configuration
from tiltmeter.runs.progress import counted_steps
from tiltmeter.sweeps.crossing_measure import Arrays, measure_crossings
from tiltmeter.sweeps.given_readouts import Readouts
from tiltmeter.sweeps.known import refuse_other_run
from tiltmeter.sweeps.plan import Plan, Sweep, make_plan
from tiltmeter.sweeps.records import identity, record
from tiltmeter.sweeps.run import Prepared, check_measured, opened, prepare

FROM_ZERO = ("kl", "js", "l2")
"""Readouts that are zero without a perturbation and grow with it, as `tiltmeter.analysis.shapes` assumes."""

WITH_THRESHOLD = "rank"
"""Grows, but from 1: it crosses a threshold, and has no fraction of its last value."""

CROSSINGS = "crossings"
"""What the shards of a run of crossings, and its table, are called."""


class Crossings(Configuration):
    """A crossing target, and the sweep whose curves are searched."""

    sweep: Sweep
    """A sweep of one readout. The steps of its path are the grid."""
    goal: CrossingTarget

    @model_validator(mode="after")
    def _has_crossings(self) -> Crossings:
        sweep, tolerance = self.sweep, self.goal.tolerance
        if isinstance(sweep.path, Substitute) or len(sweep.path.steps) < 2:
            raise ValueError(
                "a crossing needs a path of several points, and this one has a single point; give more steps"
            )
        if len(set(sweep.readouts)) > 1:
            raise ValueError(f"the readouts {', '.join(sweep.readouts)} cross at different points; give one")
        _check_grows(sweep.readouts, self.goal)
        if sweep.keep_positions:
            raise ValueError(
                "positions that are perturbed together have no separate crossings to bisect; perturb one "
                "(--positions last), or sweep with --keep-positions"
            )
        if tolerance is not None and tolerance < 1e-6 * (longest := max(sweep.path.steps)):
            raise ValueError(
                f"a tolerance of {tolerance:g} is below the float32 resolution on a path to {longest:g}; give at "
                f"least {1e-6 * longest:g}"
            )
        return self


def _check_grows(readouts: Readouts, goal: CrossingTarget) -> None:
    """Check that the one readout grows along a path, where that is known: of a user's function it is not.

    Raises:
        ValueError: it falls, or may do either; it does not begin at zero, and a fraction is asked for.
    """
    (name,) = set(readouts)
    is_own = isinstance(readouts, Mapping) and readouts[name] is not None
    kind = curves.kind_of(name)
    if not is_own and kind not in (*FROM_ZERO, WITH_THRESHOLD):
        raise ValueError(
            f"{name} does not grow from zero along a path; give kl, js or l2@SITE, rank with a threshold, or, in "
            "Python, a function that grows, such as the clean value minus the perturbed one"
        )
    if goal.fraction is not None and (is_own or kind not in FROM_ZERO):
        raise ValueError(
            f"{name} may not be zero where nothing is perturbed, so a fraction of its last value says little; give a "
            "threshold"
        )


def run_crossings(
    wanted: Crossings,
    model: ModelGiven,
    tokens: TokensGiven,
    out: str | Path | None = None,
    purpose: str = "crossings",
) -> pd.DataFrame:
    """Find crossings and store them in the run directory `out`, resuming an interrupted run.

    Args:
        wanted: the target and the sweep.
        model: the model: what `load_model` returns or takes.
        tokens: token sequences: a `TokenSet`, or what `load_tokens` takes. The first are measured; the statistics may
            use more.
        out: the run directory, created if it does not exist. With None, nothing is left on disk.
        purpose: recorded in the manifest.

    Returns:
        The `crossing_table`, with one row per direction and sequence. It is stored in `out` as `crossings.csv` and
        `crossings.parquet`, and its `crossing_summary` as `summary.csv` and `summary.parquet`.

    Raises:
        TiltmeterError: invalid input; `out` is in use or belongs to another run; the model cannot be split; nothing
            could be measured.
    """
    refuse_other_run(out, wanted.sweep, crossings=wanted.goal.model_dump(mode="json"))
    loaded = load_model(model)
    token_set = tokens_for(loaded, tokens, wanted.sweep.sequences_to_load)
    plan = make_plan(wanted.sweep, loaded.model, token_set, loaded.tokenizer)
    with opened(plan, out, crossings_identity(wanted, plan, loaded), partial(_record, plan, loaded, purpose)) as run:
        ready = prepare(plan, run)
        found = search_shards(ready, run, search_of(wanted, ready))
        table = crossing_table(found, tuple(map(str, plan.directions)), plan.tokens.document)
        check_measured(int(table.tokens.sum()))
        write_crossings(plan, run, table)
    return table


def write_crossings(plan: Plan, run: run_directory.Run, table: pd.DataFrame) -> None:
    """Store crossings and their summary."""
    summary = crossing_summary(table, span(plan), len(plan.sweep.path.steps))
    for name, one in ((CROSSINGS, table), ("summary", summary)):
        curves.write_table(run, name, one)


def span(plan: Plan) -> int:
    """Count the tokens of a sequence that one model evaluation runs: from the first perturbed to the last read."""
    return plan.positions.span.stop - plan.positions.span.first


def crossing_table(
    arrays: Arrays, directions: tuple[str, ...], documents: Int[np.ndarray, " sequence"]
) -> pd.DataFrame:
    """Label the measured crossings as a table.

    Args:
        arrays: as `measure_crossings` returns them, [direction, sequence].
        directions: names of the directions.
        documents: which document each sequence of the token set is from.

    Returns:
        Columns `direction`, `sequence`, `document`; `crossing_at` and `crossing_censored`, as in a `shape_table`; the
        bracket `below_at`, `above_at` (units of the path) with the readout there, `value_below`, `value_above`;
        `points`, the number of measured points of the curve; `tokens`, the number of tokens averaged at each.
    """
    rows = pd.MultiIndex.from_product(
        [list(directions), range(arrays["at"].shape[1])], names=["direction", "sequence"]
    ).to_frame(index=False)
    columns = {
        "crossing_at": "at",
        "crossing_censored": "censored",
        "below_at": "below",
        "above_at": "above",
        "value_below": "value_below",
        "value_above": "value_above",
        "points": "points",
        "tokens": "tokens",
    }
    rows["document"] = documents[rows.sequence]
    return rows.assign(**{column: arrays[name].ravel() for column, name in columns.items()})


def crossing_summary(table: pd.DataFrame, span: int, steps: int) -> pd.DataFrame:
    """Summarise the crossings of each direction and their cost, one row per direction.

    Args:
        table: a `crossing_table`.
        span: number of tokens that one evaluation of the model runs per sequence.
        steps: number of points of a full scan.

    Returns:
        The columns of `shape_summary`; `median_low` and `median_high`, the 95 % interval of the median over sequences
        (infinite if a bound falls among censored ones), by documents where several sequences are from one; `points`,
        the mean number of points per curve; `passes` and `scan_passes`, the perturbed-token passes that were run, and
        those a scan of all steps would run.
    """
    parts = [(direction, part) for direction, part in table.groupby("direction", sort=False)]
    ends = [
        median_interval(shape_column(part, "crossing_at").value_or_inf, documents=part.document.to_numpy())
        for _, part in parts
    ]
    return shape_summary(table).assign(
        median_low=[low for low, _ in ends],
        median_high=[high for _, high in ends],
        points=[part.points.mean() for _, part in parts],
        passes=[int(part.points.sum()) * span for _, part in parts],
        scan_passes=[len(part) * steps * span for _, part in parts],
    )


class Search(NamedTuple):
    """What is searched along which directions."""

    goal: CrossingTarget
    directions: Mapping[DirectionName, Direction]
    path: Straight | Sphere
    stored: str
    """What its shards are called in the run directory."""
    shown: str
    """What they are called beside their progress."""


def search_of(wanted: Crossings, ready: Prepared) -> Search:
    """The search for the crossings of a run."""
    assert not isinstance(ready.path, Substitute)  # ruled out by `Crossings`
    return Search(_resolved(wanted, ready), ready.directions, ready.path, CROSSINGS, "curves")


def search_shards(ready: Prepared, run: run_directory.Run, search: Search) -> Arrays:
    """Find the crossings of every shard that is not stored yet, and concatenate all in sequence order.

    Raises:
        TiltmeterError: as `measure_crossings`.
    """
    sweep, parts = ready.plan.sweep, []
    given = (ready.plan, search.goal, search.directions, search.path)
    with counted_steps(sweep.sequences * len(search.directions), search.shown) as steps:
        for begin in range(0, sweep.sequences, sweep.shard):
            name = f"{search.stored}-{begin // sweep.shard:05d}"
            sequences = range(begin, min(begin + sweep.shard, sweep.sequences))
            if (arrays := run.load(name)) is None:
                arrays = measure_crossings(*given, sequences, ready.base, steps.take)
                run.save(name, arrays)
            else:
                steps.skip(len(sequences) * len(search.directions))
            parts.append(arrays)
    return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}


def _resolved(wanted: Crossings, ready: Prepared) -> CrossingTarget:
    """Convert the goal's tolerance to the units of the resolved path, where pair distances are lengths."""
    goal = wanted.goal
    if goal.tolerance is None:
        return goal
    unit = max(ready.path.steps) / max(wanted.sweep.path.steps)
    return goal.model_copy(update={"tolerance": goal.tolerance * unit})


def crossings_identity(wanted: Crossings, plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    """Collect everything that determines the crossings of a run."""
    return identity(plan, loaded) | {"crossings": wanted.goal.model_dump(mode="json")}


def _record(plan: Plan, loaded: LoadedModel, purpose: str) -> dict[str, Any]:
    return record(plan, loaded, purpose) | {"units": plan.sweep.path.resolved(1.0).units}
