"""`tiltmeter claims`: print the verdicts of a finished study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.cli.catalogue import catalogue


def claims(
    run: Annotated[Path, typer.Argument(help="Run directory of one study, or of all.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, one for each claim.")] = False,
) -> None:
    """Print a finished run's verdict on each claim."""
    text, rows = judged(run)
    typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) if as_json else text)


def judged(run: Path) -> tuple[str, list[dict[str, object]]]:
    """The table of claims as text, and its rows: as stored, without importing torch, or else judged now.

    Raises:
        TiltmeterError: the folder is no run of a study.
    """
    from tiltmeter.reports.stored_claims import stored_rows, studies_in, table_of_claims
    from tiltmeter.runs.user_paths import user_path

    folder = user_path(run)
    names = studies_in(folder, tuple(catalogue()["studies"]))
    rows = [stored_rows(folder / name) for name in names or [""]]
    if all(rows):
        found = [row for own in rows for row in own]
        return table_of_claims(folder, names, found), [row.plain() for row in found]
    from tiltmeter.studies.report import claims_rows, claims_text

    return claims_text(run), [row.plain() for row in claims_rows(run)]
