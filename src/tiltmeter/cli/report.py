"""`tiltmeter report`: draw a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.cli.output import AsJson
from tiltmeter.cli.show import json_lines_of


def report(
    run: Annotated[Path, typer.Argument(help="Run directory of a sweep, of crossings or of a study.")],
    as_json: AsJson = False,
) -> None:
    """Draw a finished run's figures and report again."""
    page, text = publish_again(run)
    typer.echo(json_lines_of(page.parent) if as_json else f"{text}\nreport: {page}")


def publish_again(folder: Path) -> tuple[Path, str]:
    """Write the report of a sweep, of crossings, of a study or of all studies again.

    Returns:
        The page, and its main table as text.

    Raises:
        TiltmeterError: the folder is not a finished run.
    """
    from tiltmeter.reports.sweep import publish, short_table
    from tiltmeter.runs.user_paths import user_path
    from tiltmeter.studies.report import claims_text, is_study, publish_all, publish_study, studies_in

    folder = user_path(folder)
    if names := studies_in(folder):
        for name in names:
            publish_study(folder / name)
        return publish_all(folder), claims_text(folder)
    if is_study(folder):
        return publish_study(folder), claims_text(folder)
    return publish(folder), short_table(folder)
