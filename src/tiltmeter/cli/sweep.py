"""`tiltmeter sweep`: measure how the output changes along directions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.cli.dry_run import DryRun, print_forecast
from tiltmeter.cli.grouping import takes_groups
from tiltmeter.cli.options import ModelOptions, RunOptions, TokenOptions
from tiltmeter.cli.output import OutputOptions, publish_if_possible
from tiltmeter.cli.parsing import path_of, relative_precision
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

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.models.loading import LoadedModel
    from tiltmeter.sweeps.plan import Sweep

MAX_SEQUENCES = 16_000
"""The most sequences that `--until-ci` measures without `--sequences`. At 128 tokens each, they are the two million
tokens of Lee & Heimersheim 2024."""


@takes_groups
def sweep(
    *,
    perturbation: PerturbationOptions,
    substitute: Annotated[
        bool,
        typer.Option(
            "--substitute", help="Instead of lengths: replace x by x + v, v each direction's vector at its own length."
        ),
    ] = False,
    readout: Annotated[
        list[str],
        typer.Option(
            help="kl, js, loss, entropy, rank, top1, l2@SITE, cos@SITE, prob:TOKEN or logit-diff:TOKEN,TOKEN, with "
            'tokens as yes, #464 or, in quotes, " Paris". Repeat for several.'
        ),
    ] = ["kl"],  # noqa: B006
    positions: PositionOptions,
    keep_positions: Annotated[bool, typer.Option(help="Store each position's value, not only their mean.")] = False,
    model: ModelOptions,
    tokens: TokenOptions,
    measurement: MeasurementOptions,
    until_ci: Annotated[
        str | None,
        typer.Option(
            help="Stop when every mean is known to within this relative precision: 2% or 0.02. --sequences is then the "
            "maximum (default: 16,000, or all there are)."
        ),
    ] = None,
    run: RunOptions,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Measure how the output changes along directions.

    Example: tiltmeter sweep --site resid_pre:3 --direction real-mixture --direction along:steer.npy --lengths 0:50:5

    With SAEs: tiltmeter sweep --site resid_pre:3 --sae "nano:e2e-*" --direction sae-error --lengths 0:40:5
    """
    output.begin()
    config = sweep_config(perturbation, positions) | {
        "path": path_of(perturbation.lengths, perturbation.unit, perturbation.angles, substitute),
        "readouts": readout,
        "keep_positions": keep_positions,
    }
    precision = relative_precision(until_ci)
    refuse_early("sweep", config, model, tokens, measurement, run)
    sequences = MAX_SEQUENCES if precision and measurement.sequences is None else measurement.sequences
    wanted = make_sweep(
        config,
        sequences=sequences,
        statistics_sequences=measurement.statistics_sequences,
        until_ci=precision,
        seed=run.seed,
    )
    from tiltmeter.models.sites import names_several
    from tiltmeter.sweeps.known import refuse_other_run
    from tiltmeter.sweeps.sites import matching_sites

    refuse_other_run(run.out, wanted)
    wanted, loaded, token_set = load_for(wanted, model, tokens, measurement, output)
    sites = [site.name for site in matching_sites(wanted.site, loaded.model)]
    several = names_several(wanted.site)
    place = f"{len(sites)}-sites" if several else sites[0]
    out = run.directory(f"sweep-{Path(model.model).name}-{place}", wanted.model_dump_json(), model.model, token_set)
    if dry_run:
        print_forecast(wanted, loaded, token_set, out, output)
        return
    announce(wanted, token_set, out, output)
    if several:
        _run_at_sites(wanted, loaded, token_set, out, output)
    else:
        _run(wanted, loaded, token_set, out, output)


def _run(sweep: Sweep, loaded: LoadedModel, tokens: TokenSet, out: Path, output: OutputOptions) -> None:
    """Measure, draw the figures, and print the results and where they are."""
    from tiltmeter.analysis.stopping import Stopped
    from tiltmeter.reports.sweep import short_table
    from tiltmeter.sweeps.run import run_sweep

    curves = run_sweep(sweep, loaded, tokens, out, "sweep")
    files = publish_if_possible(out)
    stopped = Stopped.of_curves(curves)
    lines = [stopped.sentence] if stopped and stopped.reached else []
    lines.append(f"pair distance: {curves.attrs['pair_distance']:.2f}")
    output.give(out, lambda: "\n".join([*lines, short_table(out), files]))


def _run_at_sites(sweep: Sweep, loaded: LoadedModel, tokens: TokenSet, out: Path, output: OutputOptions) -> None:
    """Measure at one site after the other, and publish and print the results of each, which is a run of its own."""
    from tiltmeter.reports.sweep import short_table
    from tiltmeter.sweeps.run import run_sweep

    curves = run_sweep(sweep, loaded, tokens, out, "sweep")
    for name, distance in zip(curves.site.values, curves.pair_distance.values, strict=True):
        files = publish_if_possible(folder := out / str(name))
        lines = [f"{name}  (pair distance {float(distance):.2f})", short_table(folder), files, ""]
        output.give(folder, partial("\n".join, lines))
