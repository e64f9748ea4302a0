"""The command line. A thin shell: each command loads, runs and prints; nothing imports this file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tiltmeter import __version__
from tiltmeter.arguments import layer_of, numbers, run_folder, validated
from tiltmeter.errors import TiltmeterError

if TYPE_CHECKING:
    from tiltmeter.loading import LoadedModel
    from tiltmeter.plan import Sweep
    from tiltmeter.tokens import TokenSet


class _Commands(TyperGroup):
    """Commands that say what an interruption means; Typer would end them without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("tiltmeter: interrupted; the same command goes on from the last finished shard.", err=True)
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


Model = Annotated[str, typer.Option(help="nano, a Hugging Face id, or the directory of a Hugging Face model.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hugging Face model.")]
Tokens = Annotated[
    str | None,
    typer.Option(
        help="nano (held-out modules of Python's standard library); a .npy, .safetensors, .parquet, .jsonl or text "
        "file; or a data set of the Hugging Face hub, owner/dataset or owner/dataset:split "
        "(default: nano for the model nano)."
    ),
]
Column = Annotated[str | None, typer.Option(help="Column of token ids or text. (default: tokens, input_ids, text)")]
TokensRevision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a data set on the hub.")]
Length = Annotated[int | None, typer.Option(help="Tokens per sequence. (default: as stored; 128 for text)")]
NSequences = Annotated[int | None, typer.Option(help="Sequences to measure. (default: 192, or all there are)")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")]
Precision = Annotated[str, typer.Option(help="Arithmetic of the model: float32 or float64.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random vector. (default: 0)")]
Out = Annotated[Path | None, typer.Option(help="Run directory. (default: runs/NAME-MODEL-...)")]


@app.command()
def reproduce(
    study: Annotated[str, typer.Argument(help="The paper: lee2024.")],
    figure: Annotated[str, typer.Option(help="Which of its figures.")] = "1",
    model: Model = "nano",
    revision: Revision = None,
    layer: Annotated[int | None, typer.Option(help="Layer to perturb. (default: the middle one)")] = None,
    tokens: Tokens = None,
    column: Column = None,
    tokens_revision: TokensRevision = None,
    length: Length = None,
    n_sequences: NSequences = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Run a paper's experiment, on nano or on a model of your own, and draw its figure.

    Killed at any moment, the same command goes on where it stopped.
    """
    from tiltmeter.studies import find_figure

    _, wanted = find_figure(study, figure)
    loaded = _load(model, revision, device, precision)
    layer = layer_of(layer, loaded.model.n_layers, model)
    sweep = wanted.sweep(loaded.model, layer)
    sweep = validated(sweep.model_dump(), sequences=n_sequences, seed=seed)
    token_set = _tokens(loaded, sweep, model, tokens, column, tokens_revision, length)
    sweep = _as_many_as_there_are(sweep, token_set, n_sequences)
    name = Path(model).name
    _run(
        sweep,
        loaded,
        token_set,
        out or run_folder(f"{study}-{figure}-{name}-{layer}", sweep, model, token_set),
        f"{study}/{figure}",
    )


@app.command()
def sweep(
    site: Annotated[str, typer.Option(help="Where to push: blocks.3.hook_resid_pre, or short resid_pre:3.")],
    direction: Annotated[
        list[str], typer.Option(help="A direction's name, or along:FILE (.npy, .safetensors). Repeat for several.")
    ],
    lengths: Annotated[str, typer.Option(help="Comma-separated lengths, or START:STOP:STEP.")] = "",
    unit: Annotated[
        str, typer.Option(help="Unit of the lengths: absolute, norm (of x), target (1 reaches it) or pair-distance.")
    ] = "absolute",
    angles: Annotated[str, typer.Option(help="Instead of lengths: degrees on the sphere, in the same form.")] = "",
    readout: Annotated[list[str], typer.Option(help="kl, js, loss, l2@SITE, cos@SITE. Repeat for several.")] = ["kl"],  # noqa: B006
    positions: Annotated[str, typer.Option(help="all, last, 32, 32+16 (perturb 32, read 32 to 48) or 3,7,9.")] = "all",
    bos_statistics: Annotated[str, typer.Option(help="Boundary positions in or out of the statistics.")] = "out",
    bos_perturbation: Annotated[str, typer.Option(help="Boundary positions in or out of the perturbation.")] = "in",
    bos_average: Annotated[str, typer.Option(help="Boundary positions in or out of the averages.")] = "in",
    keep_positions: Annotated[bool, typer.Option(help="Keep each position apart in the results.")] = False,
    model: Model = "nano",
    revision: Revision = None,
    tokens: Tokens = None,
    column: Column = None,
    tokens_revision: TokensRevision = None,
    length: Length = None,
    n_sequences: NSequences = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Measure directions of your choice, your own vectors among them.

    Example: tiltmeter sweep --site resid_pre:3 --direction real-mixture --direction along:steer.npy --lengths 0:50:5
    """
    if bool(lengths) == bool(angles):
        raise TiltmeterError("Give either --lengths or --angles, and one of them.")
    if angles and unit != "absolute":
        raise TiltmeterError(f"--unit {unit} is for --lengths; --angles are in degrees.")
    path = {"lengths": numbers(lengths), "unit": unit} if lengths else {"kind": "sphere", "degrees": numbers(angles)}
    config = {
        "site": site,
        "directions": direction,
        "path": {"kind": "straight"} | path,
        "readouts": readout,
        "positions": positions,
        "bos": {"statistics": bos_statistics, "perturbation": bos_perturbation, "average": bos_average},
        "keep_positions": keep_positions,
    }
    wanted = validated(config, sequences=n_sequences, seed=seed)
    loaded = _load(model, revision, device, precision)
    token_set = _tokens(loaded, wanted, model, tokens, column, tokens_revision, length)
    wanted = _as_many_as_there_are(wanted, token_set, n_sequences)
    place = loaded.model.site(site).name
    _run(
        wanted,
        loaded,
        token_set,
        out or run_folder(f"sweep-{Path(model).name}-{place}", wanted, model, token_set),
        "sweep",
    )


@app.command("list")
def list_() -> None:
    """Show the models, sites, directions, readouts and studies there are."""
    from tiltmeter.directions import DIRECTIONS
    from tiltmeter.loading import EMBEDDED
    from tiltmeter.readouts import OUTPUT_READOUTS, SITE_READOUTS
    from tiltmeter.sites import HOOKS
    from tiltmeter.studies import STUDIES

    own = {"along:FILE": "vectors of your own (.npy, .safetensors); along:FILE#3 a row, along:FILE#NAME a tensor"}
    sections = {
        "models": {name: "comes with tiltmeter" for name in EMBEDDED}
        | {"owner/model": "any causal language model of the Hugging Face hub", "DIR": "a directory of one"},
        "sites": {f"blocks.L.{hook}": f"short: {kind}:L" for kind, hook in HOOKS.items()},
        "directions": {name: definition.meaning for name, definition in DIRECTIONS.items()} | own,
        "readouts": {name: definition.meaning for name, definition in OUTPUT_READOUTS.items()}
        | {f"{name}@SITE": definition.meaning for name, definition in SITE_READOUTS.items()},
        "studies": {
            f"{name} --figure {number}": f"{figure.title} ({study.citation})"
            for name, study in STUDIES.items()
            for number, figure in study.figures.items()
        },
    }
    for title, rows in sections.items():
        typer.echo(title)
        for name, meaning in rows.items():
            typer.echo(f"  {name:28} {meaning}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Draw a finished run's figures and report again, from its stored results."""
    from tiltmeter.publish import publish, short_table

    page = publish(run)
    typer.echo(short_table(run))
    typer.echo(f"report: {page}")


def main() -> None:
    """Run the command line. Wrong input ends with one sentence on stderr and status 2."""
    try:
        app(standalone_mode=True)
    except TiltmeterError as error:
        typer.echo(f"tiltmeter: {error}", err=True)
        sys.exit(2)


def _load(model: str, revision: str | None, device: str, precision: str) -> LoadedModel:
    from tiltmeter.loading import load_model

    typer.echo(f"model: {model}", err=True)
    return load_model(model, revision, device, precision)


def _tokens(
    loaded: LoadedModel,
    sweep: Sweep,
    model: str,
    tokens: str | None,
    column: str | None,
    revision: str | None,
    length: int | None,
) -> TokenSet:
    """The sequences to measure, and as many more as the statistics may want."""
    if tokens is None and model != "nano":
        raise TiltmeterError(
            f"No tokens were named for {model}; give --tokens a file or a data set of token sequences."
        )
    return loaded.load_tokens(
        "nano" if tokens is None else tokens,
        at_most=max(sweep.sequences, sweep.statistics_sequences),
        length=length,
        column=column,
        revision=revision,
    )


def _as_many_as_there_are(sweep: Sweep, tokens: TokenSet, asked: int | None) -> Sweep:
    """Where no number of sequences was asked for, measure no more than there are."""
    return sweep if asked else sweep.model_copy(update={"sequences": min(sweep.sequences, len(tokens.ids))})


def _run(sweep: Sweep, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> None:
    from tiltmeter.publish import publish, short_table
    from tiltmeter.sweep import run_sweep

    typer.echo(f"run:   {out}  ({sweep.sequences} sequences of {tokens.ids.shape[1]} tokens at {sweep.site})", err=True)
    curves = run_sweep(sweep, loaded, tokens, out, purpose)
    page = publish(out)
    typer.echo(f"mean distance of two real activations: {float(curves.attrs['pair_distance']):.2f}")
    typer.echo(short_table(out))
    typer.echo(f"figures: {out / 'figures'}\nreport:  {page}")


if __name__ == "__main__":
    main()
