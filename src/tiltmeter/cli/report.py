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
    from tiltmeter.runs.user_paths import user_path
    from tiltmeter.studies.notebook import publish_again

    page, text = publish_again(user_path(run))
    typer.echo(json_lines_of(page.parent) if as_json else f"{text}\nreport: {page}")
