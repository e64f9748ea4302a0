"""`tiltmeter sweep`: measure how the output changes along directions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.cli.grouping import takes_groups
from tiltmeter.cli.options import ModelOptions, RunOptions, TokenOptions
from tiltmeter.cli.parsing import path_of, relative_precision
from tiltmeter.cli.sweep_options import (
    MeasurementOptions,
    PerturbationOptions,
    PositionOptions,
    load_for,
    make_sweep,
    sweep_config,
)

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.models.loading import LoadedModel
    from tiltmeter.sweeps.plan import Sweep

MAX_SEQUENCES = 16_000
"""The most sequences that `--until-ci` measures without `--n-sequences`. At 128 tokens each, they are the two million
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
            help="Stop when every mean is known to within this relative precision: 2% or 0.02. --n-sequences is then "
            "the maximum (default: 16,000, or all there are)."
        ),
    ] = None,
    run: RunOptions,
) -> None:
    """Measure how the output changes along directions.

    Example: tiltmeter sweep --site resid_pre:3 --direction real-mixture --direction along:steer.npy --lengths 0:50:5

    With SAEs: tiltmeter sweep --site resid_pre:3 --sae "nano:e2e-*" --direction sae-error --lengths 0:40:5
    """
    config = sweep_config(perturbation, positions) | {
        "path": path_of(perturbation.lengths, perturbation.unit, perturbation.angles, substitute),
        "readouts": readout,
        "keep_positions": keep_positions,
    }
    precision = relative_precision(until_ci)
    sequences = MAX_SEQUENCES if precision and measurement.n_sequences is None else measurement.n_sequences
    wanted = make_sweep(config, sequences=sequences, until_ci=precision, seed=run.seed)
    wanted, loaded, token_set = load_for(wanted, model, tokens, measurement)
    site = loaded.model.site(wanted.site).name
    out = run.directory(f"sweep-{Path(model.model).name}-{site}", wanted, model.model, token_set)
    _run(wanted, loaded, token_set, out)


def _run(sweep: Sweep, loaded: LoadedModel, tokens: TokenSet, out: Path) -> None:
    """Measure, draw the figures, and print the results and where they are."""
    from tiltmeter.analysis.stopping import Stopped
    from tiltmeter.reports.sweep import publish, short_table
    from tiltmeter.sweeps.run import run_sweep

    number = f"{sweep.sequences}" if sweep.until_ci is None else f"at most {sweep.sequences}"
    typer.echo(f"run:   {out}  ({number} sequences of {tokens.ids.shape[1]} tokens at {sweep.site})", err=True)
    curves = run_sweep(sweep, loaded, tokens, out, "sweep")
    page = publish(out)
    if (stopped := Stopped.of_curves(curves)) and stopped.reached:
        typer.echo(stopped.sentence)
    typer.echo(f"pair distance: {float(curves.attrs['pair_distance']):.2f}")
    typer.echo(short_table(out))
    typer.echo(f"figures: {out / 'figures'}\nreport:  {page}")
