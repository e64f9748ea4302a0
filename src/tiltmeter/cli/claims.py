"""`tiltmeter claims`: print the verdicts of a finished study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def claims(run: Annotated[Path, typer.Argument(help="Run directory of one study, or of all.")]) -> None:
    """Print the paper's claims and the run's verdict on each, from the stored results."""
    from tiltmeter.studies.report import claims_text

    typer.echo(claims_text(run))
