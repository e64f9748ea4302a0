"""`tiltmeter crossings`: find where each sequence's readout passes a threshold along each direction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.cli.dry_run import DryRun, print_forecast
from tiltmeter.cli.grouping import takes_groups
from tiltmeter.cli.options import ModelOptions, RunOptions, TokenOptions
from tiltmeter.cli.output import OutputOptions, publish_if_possible
from tiltmeter.cli.parsing import given, path_of
from tiltmeter.cli.sweep_options import (
    MeasurementOptions,
    PerturbationOptions,
    PositionOptions,
    announce,
    load_for,
    make_sweep,
    refuse_early,
    sweep_config,
)
from tiltmeter.errors import TiltmeterError

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.models.loading import LoadedModel
    from tiltmeter.sweeps.crossings import Crossings


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What a crossing is, and how it is searched; the fields of `CrossingTarget`."""

    threshold: Annotated[
        float | None, typer.Option(help="Value that the readout must pass, in the readout's unit: 0.5.")
    ] = None
    fraction: Annotated[
        float | None,
        typer.Option(help="Instead of --threshold: a fraction of each curve's value at the last step, 0 to 1."),
    ] = None
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest width of the bracket around a crossing, in units of the steps. (default: one step's width)"
        ),
    ] = None
    guard: Annotated[
        int | None,
        typer.Option(help="Steps that are measured in ascending order before bisection begins. (default: 4)"),
    ] = None


@takes_groups
def crossings(
    *,
    perturbation: PerturbationOptions,
    readout: Annotated[str, typer.Option(help="kl, js, l2@SITE, or rank with --threshold.")] = "kl",
    target: TargetOptions,
    positions: PositionOptions,
    model: ModelOptions,
    tokens: TokenOptions,
    measurement: MeasurementOptions,
    run: RunOptions,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Find where each curve passes a threshold, by bisection.

    docs/crossings.md says which crossing is found on a curve that passes the threshold several times.

    Example: tiltmeter crossings --site resid_pre:3 --direction real-mixture --direction isotropic
    --angles 0:180:2 --positions last --threshold 0.5
    """
    output.begin()
    lengths, angles = perturbation.lengths, perturbation.angles
    if bool(lengths) == bool(angles):
        raise TiltmeterError("Give one of --lengths and --angles, and only one.")
    config = sweep_config(perturbation, positions) | {
        "path": path_of(lengths, perturbation.unit, angles, substitute=False),
        "readouts": [readout],
    }
    refuse_early("crossings", config, model, tokens, measurement, run)
    from tiltmeter.analysis.bisection import CrossingTarget
    from tiltmeter.sweeps.crossings import Crossings
    from tiltmeter.sweeps.known import refuse_other_run

    sweep = make_sweep(
        config,
        sequences=measurement.sequences,
        statistics_sequences=measurement.statistics_sequences,
        seed=run.seed,
    )
    wanted = Crossings(sweep=sweep, goal=CrossingTarget(**given(**asdict(target))))
    refuse_other_run(run.out, sweep, crossings=wanted.goal.model_dump(mode="json"))
    sweep, loaded, token_set = load_for(sweep, model, tokens, measurement, output)
    wanted = wanted.model_copy(update={"sweep": sweep})
    site = loaded.model.site(sweep.site).name
    out = run.directory(f"crossings-{Path(model.model).name}-{site}", wanted.model_dump_json(), model.model, token_set)
    if dry_run:
        print_forecast(wanted, loaded, token_set, out, output)
        return
    _run(wanted, loaded, token_set, out, output)


def _run(wanted: Crossings, loaded: LoadedModel, tokens: TokenSet, out: Path, output: OutputOptions) -> None:
    """Find the crossings, draw the figures, and print the results and where they are."""
    from tiltmeter.reports.sweep import short_table
    from tiltmeter.sweeps.crossings import run_crossings

    announce(wanted.sweep, tokens, out, output)
    run_crossings(wanted, loaded, tokens, out)
    files = publish_if_possible(out)
    tables = f"tables: {out / 'crossings.csv'}, {out / 'summary.csv'} (and .parquet)"
    output.give(out, lambda: f"{short_table(out)}\n{tables}\n{files}")
