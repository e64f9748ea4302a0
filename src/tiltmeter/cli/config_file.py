"""`--config FILE`: options from a YAML or JSON file, or from the manifest of a run; options of the command line win.

A key is an option's name without its dashes, with `-` or `_`. An option that may be repeated takes a list, also under
its name in Python (`directions`, `saes`, `readouts`). A mapping is short for options that begin alike:
`bos: {statistics: in}` is `bos-statistics: in`, as in Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tiltmeter.cli.from_manifest import is_manifest, load_config, options_of_manifest
from tiltmeter.errors import TiltmeterError, did_you_mean

NOT_GIVEN = ("", "null", "~")
"""Values that mean that an option is not given."""


def _use(ctx: Any, path: Path | None) -> Path | None:
    """Take the options of a file as the defaults of a command."""
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = read_config(path, ctx.command, str(ctx.info_name))
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=_use,
        help="YAML or JSON file of options, which those of the command line override (tiltmeter init writes one); or "
        "the manifest.json of a run.",
    ),
]


def read_config(path: Path, command: Any, name: str) -> dict[str, Any]:
    """The options of a file, by the names of the command's parameters.

    Raises:
        TiltmeterError: the file cannot be read, a key is no option of the command, or a value is of a wrong form.
    """
    content = load_config(path)
    if is_manifest(content):
        content = options_of_manifest(content, name, path)
    parameters = _parameters(command)
    found: dict[str, Any] = {}
    for key, value in _flat(content):
        if (parameter := _named(key, parameters)) is None:
            raise TiltmeterError(
                f"{path} has {key!r}, which is not an option of tiltmeter {name}{did_you_mean(key, parameters)}; "
                f"tiltmeter {name} --help shows all."
            )
        if (taken := _value(value, parameter, path)) is not None:
            if parameter.name in found:
                raise TiltmeterError(f"{path} gives --{parameter.name} twice, also as {key!r}; give it once.")
            found[parameter.name] = taken
    return found


def _named(key: str, parameters: Mapping[str, Any]) -> Any:
    """The parameter that a key means; None if there is none. `directions` is `direction`, which may be repeated."""
    if key in parameters:
        return parameters[key]
    singular = parameters.get(key.removesuffix("s"))
    return singular if singular is not None and singular.multiple else None


def _parameters(command: Any) -> dict[str, Any]:
    """The options of a command, by their names without dashes; and its arguments."""
    found: dict[str, Any] = {}
    for parameter in command.params:
        if parameter.name in ("config", "help"):
            continue
        for name in (*parameter.opts, parameter.name.replace("_", "-")):
            if name.startswith("--") or not name.startswith("-"):
                found.setdefault(name.lstrip("-").replace("_", "-"), parameter)
    return found


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{before}{str(key).replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}-")
        else:
            yield name, value


def _value(value: Any, parameter: Any, path: Path) -> Any:
    """What a key says, in the form that the parameter takes; None if it says that the option is not given."""
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        raise TiltmeterError(f"{path} has a list of lists under {parameter.name!r}; give a list of texts or numbers.")
    if parameter.multiple or parameter.nargs == -1:
        several = value if isinstance(value, list) else [value]
        return [one for one in several if one is not None and one not in NOT_GIVEN] or None
    if isinstance(value, list):
        value = ",".join(value)  # lengths: [0, 1, 5]
    return None if value is None or value in NOT_GIVEN else value
