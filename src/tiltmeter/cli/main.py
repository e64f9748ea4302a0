"""The command line: assembles the commands, and turns a `TiltmeterError` into one sentence and status 2."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tiltmeter import __version__
from tiltmeter.cli.claims import claims
from tiltmeter.cli.compare import compare
from tiltmeter.cli.crossings import crossings
from tiltmeter.cli.doctor import doctor
from tiltmeter.cli.init import init
from tiltmeter.cli.list import list_names
from tiltmeter.cli.report import report
from tiltmeter.cli.reproduce import reproduce
from tiltmeter.cli.show import show
from tiltmeter.cli.sweep import sweep
from tiltmeter.cli.train_sae import train_sae
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.malloc import keep_freed_memory


class _Commands(TyperGroup):
    """Says what to do after an interruption, where Typer would print only `Aborted!`; ends quietly before `| head`."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("tiltmeter: interrupted; the same command goes on from where it last saved.", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # what reads the output has seen enough, as head has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in its buffer
            raise typer.Exit(0) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: long option names leave rich's columns no room
    help="Perturb a language model's activations and measure how far its output moves.",
)
app.command()(reproduce)
app.command()(sweep)
app.command()(crossings)
app.command()(compare)
app.command("train-sae")(train_sae)
app.command()(show)
app.command()(claims)
app.command()(report)
app.command("list")(list_names)
app.command()(init)
app.command()(doctor)


def _show_version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"tiltmeter {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool | None,
        typer.Option("--version", "-V", is_eager=True, callback=_show_version, help="Show the version and exit."),
    ] = None,
) -> None:
    """Hold the options of tiltmeter itself."""


def main() -> None:
    """Run the command line. Wrong input ends with one sentence on stderr and status 2."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack ‖ and what a label has
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, and a notebook's backend may not be installed here
    try:
        app(prog_name="tiltmeter")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)
    except TiltmeterError as error:
        typer.echo(f"tiltmeter: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # output goes to a full disk
        typer.echo(f"tiltmeter: the output could not be written: {error.strerror or error}.", err=True)
        os._exit(2)  # what is left to write would fail again


if __name__ == "__main__":
    main()
