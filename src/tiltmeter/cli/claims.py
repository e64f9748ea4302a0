"""`tiltmeter claims`: print the verdicts of a finished study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def claims(run: Annotated[Path, typer.Argument(help="Run directory of one study, or of all.")]) -> None:
    """Print a finished run's verdict on each claim."""
    from tiltmeter.studies.report import claims_text

    typer.echo(claims_text(run))
