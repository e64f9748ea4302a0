"""`tiltmeter list`: show the names that options accept."""

from __future__ import annotations

import json
import textwrap
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from tiltmeter.cli.catalogue import SUBJECTS, subject
from tiltmeter.errors import TiltmeterError, did_you_mean


def list_names(
    of: Annotated[
        str | None, typer.Argument(metavar="SUBJECT", help=f"{', '.join(SUBJECTS)}.", show_default=False)
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="PATTERN", help="Only names that hold this text, or match it: 'sae-*'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: subject, name, meaning.")] = False,
) -> None:
    """List the names that options accept.

    Without a subject, the names of all (but of figures); with one, also what each name means.

    Example: tiltmeter list directions; tiltmeter list saes 'nano:e2e-3-*'
    """
    if of is not None and of not in SUBJECTS:
        raise TiltmeterError(f"{of!r} cannot be listed{did_you_mean(of, SUBJECTS)}; choose from {', '.join(SUBJECTS)}.")
    asked = [of] if of else [title for title in SUBJECTS if title != "figures"]
    found = {title: _matching(subject(title), pattern) for title in asked}
    if not any(found.values()):
        raise TiltmeterError(f"None of the {of} matches {pattern!r}; tiltmeter list {of} shows all.")
    if as_json:
        for title, rows in found.items():
            for name, meaning in rows.items():
                typer.echo(json.dumps({"subject": title, "name": name, "meaning": meaning}, ensure_ascii=False))
    elif of:
        typer.echo(_explained(found[of]))
    else:
        typer.echo("\n".join(f"{title}:\n{_named(rows)}" for title, rows in found.items()))
        typer.echo("tiltmeter list SUBJECT [PATTERN] says what each is.")


def _matching(rows: dict[str, str], pattern: str | None) -> dict[str, str]:
    """The rows whose name matches a glob, or in which a text occurs."""
    if pattern is None:
        return rows
    wanted = pattern.lower()
    if any(sign in wanted for sign in "*?["):
        return {name: meaning for name, meaning in rows.items() if fnmatchcase(name.lower(), wanted)}
    return {name: meaning for name, meaning in rows.items() if wanted in f"{name} {meaning}".lower()}


def _explained(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {meaning}" for name, meaning in rows.items())


def _named(rows: dict[str, str]) -> str:
    text = ", ".join(name.replace(" ", "\0") for name in rows)  # a name is not broken
    lines = textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")
