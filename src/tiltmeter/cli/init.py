"""`tiltmeter init`: write an example of a file for `--config`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from tiltmeter.cli.early.values import one_of
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.user_paths import user_path

EXAMPLES: dict[str, dict[str, str]] = {
    "sweep": {"site": "resid_pre:3", "direction": "[isotropic, real-mixture]", "lengths": "0:40:5"},
    "crossings": {
        "site": "resid_pre:3",
        "direction": "[isotropic, real-mixture]",
        "lengths": "0:40:1",
        "threshold": "0.5",
    },
    "compare": {"vectors": "[steer.npy]", "site": "resid_pre:3"},
    "train-sae": {"kind": "e2e", "site": "resid_pre:3", "sparsity": "2", "n-tokens": "1000000"},
    "reproduce": {"study": "lee2024", "quick": "true"},
}
"""Options that an example sets, by command; the others are comments."""

OF_THE_CALL = ("config", "help", "quiet", "verbose", "as_json")
"""Options that belong to a call and not to what is measured."""


def init(
    file: Annotated[Path, typer.Argument(help="File to write; it must not exist.")] = Path("sweep.yaml"),
    of: Annotated[str, typer.Option("--for", help=f"The command it is for: {', '.join(EXAMPLES)}.")] = "sweep",
) -> None:
    """Write a commented example of a file of options.

    Example: tiltmeter init sweep.yaml, then tiltmeter sweep --config sweep.yaml
    """
    one_of("--for", of, tuple(EXAMPLES))
    from tiltmeter.cli.main import app  # which has this command, too

    commands: Any = typer.main.get_command(app)
    path = user_path(file)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(example(of, commands.commands[of].params, file.name))
    except FileExistsError:
        raise TiltmeterError(f"{file} exists; name another file, or remove this one.") from None
    except OSError as error:
        raise TiltmeterError(f"{file} cannot be written ({error.strerror}); name another file.") from None
    typer.echo(f"{file} is written; edit it, then run: tiltmeter {of} --config {file}")


def example(of: str, parameters: list[Any], file: str) -> str:
    """The text of the example: an entry for each option, under its help."""
    head = (
        f"# Options of tiltmeter {of}: tiltmeter {of} --config {file}\n"
        "# Options of the command line override them. Remove the # before an option to set it.\n"
    )
    return head + "".join(_entry(one, EXAMPLES[of]) for one in parameters if one.name not in OF_THE_CALL)


def _entry(parameter: Any, examples: dict[str, str]) -> str:
    name = parameter.opts[0].lstrip("-").replace("_", "-")
    words = textwrap.fill(parameter.help or "", 100, initial_indent="# ", subsequent_indent="# ")
    default = parameter.default() if callable(parameter.default) else parameter.default
    shown = default if isinstance(default, (int, float, str)) and not isinstance(default, bool) else ""
    if isinstance(default, (list, tuple)) and default:
        shown = f"[{', '.join(map(str, default))}]"
    line = f"{name}: {examples[name]}" if name in examples else f"# {name}: {shown}".rstrip()
    return f"\n{words}\n{line}\n"
