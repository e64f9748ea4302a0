"""The command line. A thin shell: each command loads, runs and prints; nothing imports this file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tiltmeter import __version__
from tiltmeter.cli import actions
from tiltmeter.cli.crossings import crossings
from tiltmeter.cli.options import (
    Angles,
    BaseName,
    BosAverage,
    BosBefore,
    BosPerturbation,
    BosStatistics,
    Column,
    Device,
    Directions,
    Length,
    Lengths,
    LengthUnit,
    Model,
    NSequences,
    Out,
    PositionsText,
    Precision,
    Revision,
    Saes,
    Seed,
    SiteName,
    StreamName,
    Tokens,
    TokensRevision,
    UntilCI,
)
from tiltmeter.cli.parsing import AT_MOST, given, path_of, run_folder, share, sweep_of
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.malloc import keep_freed_memory


class _Commands(TyperGroup):
    """Commands that say what an interruption means; Typer would end them without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("tiltmeter: interrupted; the same command goes on from where it last saved.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: long option names leave rich's columns no room
    help="Push on a language model's activations and measure how far its output moves.",
)


def _show_version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"tiltmeter {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool | None, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and stop.")
    ] = None,
) -> None:
    """Options of tiltmeter itself."""


@app.command()
def reproduce(
    study: Annotated[str, typer.Argument(help="heimersheim2024, gurnee2024, lee2024, giglemiani2024, or all.")],
    figure: Annotated[
        list[str] | None, typer.Option(help="Only what this figure needs (tiltmeter list). Repeat for several.")
    ] = None,
    size: Annotated[str, typer.Option(help="How much: quick (a minute), default (minutes), paper.")] = "default",
    quick: Annotated[bool, typer.Option("--quick", help="The same as --size quick.")] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="nano, or gpt2 for the paper's model, data, layers and SAEs. (default: nano)"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Instead: a Hugging Face id, or the directory of a Hugging Face model.")
    ] = None,
    revision: Revision = None,
    layer: Annotated[int | None, typer.Option(help="Layer to perturb. (default: as deep as in the paper)")] = None,
    tokens: Tokens = None,
    column: Column = None,
    tokens_revision: TokensRevision = None,
    length: Annotated[
        int | None, typer.Option(help="Tokens per sequence. (default: as in the paper, 10 or 128)")
    ] = None,
    bos_before: Annotated[
        str | None,
        typer.Option(
            help="document: text begins with the tokenizer's boundary token; sequence: each sequence does. "
            "(default: as in the paper's preset, else document)"
        ),
    ] = None,
    sae: Saes = None,
    control: Annotated[
        str, typer.Option(help="random-weights: the same on a random model of the same shape; none.")
    ] = "random-weights",
    device: Device = "cpu",
    precision: Precision = "auto",
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Run a paper's experiments, draw its figures and test its claims, on nano or on a model of your own.

    Killed at any moment, the same command goes on where it stopped.

    Example: tiltmeter reproduce lee2024 --model my-model/ --tokens mine.parquet --sae my-sae/
    """
    from tiltmeter.studies.reproduce import ReproduceOptions
    from tiltmeter.studies.reproduce import reproduce as run

    if quick and size not in ("default", "quick"):
        raise TiltmeterError(f"Both --quick and --size {size} were given; choose one.")
    wanted = ReproduceOptions(
        figures=tuple(figure or ()),
        size="quick" if quick else size,
        preset=preset,
        model=model,
        revision=revision,
        layer=layer,
        tokens=tokens,
        column=column,
        tokens_revision=tokens_revision,
        length=length,
        bos_before=bos_before,
        saes=tuple(sae or ()),
        control=control,
        device=device,
        precision=precision,
        seed=seed or 0,
    )
    page, text = run(study, wanted, out)
    typer.echo(text)
    typer.echo(f"report:  {page}")


@app.command()
def claims(run: Annotated[Path, typer.Argument(help="The run directory of a study, or of all.")]) -> None:
    """Print what a study's run says of the paper's claims, from its stored results."""
    from tiltmeter.studies.report import claims_text

    typer.echo(claims_text(run))


@app.command()
def sweep(
    site: SiteName,
    direction: Directions,
    lengths: Lengths = "",
    unit: LengthUnit = "absolute",
    angles: Angles = "",
    substitute: Annotated[
        bool, typer.Option("--substitute", help="Instead of lengths: go to where each direction's vector ends.")
    ] = False,
    sae: Saes = None,
    base: BaseName = "clean",
    stream: StreamName = "centred",
    readout: Annotated[list[str], typer.Option(help="kl, js, loss, l2@SITE, cos@SITE. Repeat for several.")] = ["kl"],  # noqa: B006
    positions: PositionsText = "all",
    bos_statistics: BosStatistics = "out",
    bos_perturbation: BosPerturbation = "in",
    bos_average: BosAverage = "in",
    keep_positions: Annotated[bool, typer.Option(help="Keep each position apart in the results.")] = False,
    model: Model = "nano",
    revision: Revision = None,
    tokens: Tokens = None,
    column: Column = None,
    tokens_revision: TokensRevision = None,
    length: Length = None,
    bos_before: BosBefore = "document",
    n_sequences: NSequences = None,
    until_ci: UntilCI = None,
    device: Device = "cpu",
    precision: Precision = "auto",
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Measure directions of your choice, your own vectors among them.

    Example: tiltmeter sweep --site resid_pre:3 --direction real-mixture --direction along:steer.npy --lengths 0:50:5

    With SAEs: tiltmeter sweep --site resid_pre:3 --sae "nano:e2e-*" --direction sae-error --lengths 0:40:5
    """
    config = {
        "site": site,
        "directions": direction,
        "saes": sae or [],
        "base": base,
        "stream": stream,
        "path": path_of(lengths, unit, angles, substitute),
        "readouts": readout,
        "positions": positions,
        "bos": {"statistics": bos_statistics, "perturbation": bos_perturbation, "average": bos_average},
        "keep_positions": keep_positions,
    }
    goal = share(until_ci)
    most = AT_MOST if goal and n_sequences is None else n_sequences
    wanted = sweep_of(config, sequences=most, until_ci=goal, seed=seed)
    loaded = actions.load(model, revision, device, precision)
    token_set = actions.load_tokens(loaded, actions.needed(wanted), tokens, column, tokens_revision, length, bos_before)
    wanted = actions.cap_sequences(wanted, token_set, n_sequences)
    place = loaded.model.site(site).name
    actions.run(
        wanted,
        loaded,
        token_set,
        out or run_folder(f"sweep-{Path(model).name}-{place}", wanted, model, token_set),
        "sweep",
    )


app.command()(crossings)


@app.command("train-sae")
def train_sae(
    kind: Annotated[str, typer.Option(help="local, topk, e2e or e2e+ds.")],
    site: Annotated[str, typer.Option(help="Where the SAE reads: blocks.3.hook_resid_pre, or short resid_pre:3.")],
    sparsity: Annotated[float, typer.Option(help="Coefficient of the L1 norm; for topk, k.")],
    latents: Annotated[int | None, typer.Option(help="Latents. (default: 2048)")] = None,
    n_tokens: Annotated[int | None, typer.Option(help="Tokens to train on. (default: 5,000,000)")] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences per step. (default: 32)")] = None,
    at_once: Annotated[int | None, typer.Option(help="Sequences in memory at once. (default: 8)")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate. (default: 0.0005)")] = None,
    downstream: Annotated[
        list[str] | None, typer.Option(help="e2e+ds: a later site to match. Repeat. (default: resid_pre of all later)")
    ] = None,
    bos: Annotated[str | None, typer.Option(help="Boundary positions in or out of the training. (default: in)")] = None,
    evaluation: Annotated[int | None, typer.Option(help="Sequences kept apart to measure on. (default: 64)")] = None,
    every: Annotated[
        int | None, typer.Option(help="Steps between measurements and checkpoints. (default: 100)")
    ] = None,
    arithmetic: Annotated[
        str | None, typer.Option(help="Of matrix products: float32, or the quicker bfloat16. (default: float32)")
    ] = None,
    model: Model = "nano",
    revision: Revision = None,
    tokens: Tokens = None,
    column: Column = None,
    tokens_revision: TokensRevision = None,
    length: Length = None,
    bos_before: BosBefore = "document",
    device: Device = "cpu",
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Train a sparse autoencoder and save it in SAELens's format.

    Killed at any moment, the same command goes on from the last checkpoint. The default tokens for nano are nano-train,
    the text it was itself trained on.

    Example: tiltmeter train-sae --kind e2e+ds --site resid_pre:3 --sparsity 1 --n-tokens 1000000
    """
    from tiltmeter.saes.training.config import Training
    from tiltmeter.saes.training.run import train_sae as train

    config = Training(
        **given(
            kind=kind,
            site=site,
            sparsity=sparsity,
            latents=latents,
            tokens=n_tokens,
            batch=batch,
            at_once=at_once,
            learning_rate=learning_rate,
            downstream=tuple(downstream) if downstream else None,
            bos=bos,
            evaluation=evaluation,
            every=every,
            arithmetic=arithmetic,
            seed=seed,
        )
    )
    loaded = actions.load(model, revision, device, "float32")
    token_set = actions.load_tokens(
        loaded,
        actions.sequences_for(config, length),
        tokens,
        column,
        tokens_revision,
        length,
        bos_before,
        nano="nano-train",
    )
    name = f"sae-{Path(model).name}-{loaded.model.site(site).name}-{kind}-{sparsity:g}"
    out = out or run_folder(name, config, model, token_set)
    train(config, loaded, token_set, out)
    typer.echo(actions.training_table(out))
    typer.echo(f"SAE:     {out / 'sae'}\npicture: {out / 'training.png'}")


@app.command("list")
def list_() -> None:
    """Show the models, SAEs, sites, directions, bases, readouts and studies there are."""
    from tiltmeter.cli.catalogue import sections

    for title, rows in sections().items():
        typer.echo(title)
        for name, meaning in rows.items():
            typer.echo(f"  {name:34} {meaning}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Draw a finished run's figures and report again, from its stored results."""
    page, text = actions.publish_again(run)
    typer.echo(f"{text}\nreport: {page}")


def main() -> None:
    """Run the command line. Wrong input ends with one sentence on stderr and status 2."""
    keep_freed_memory()
    try:
        app(standalone_mode=True)
    except TiltmeterError as error:
        typer.echo(f"tiltmeter: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
