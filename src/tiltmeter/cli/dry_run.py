"""`--dry-run`: what a command would run, and what that would take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.cli.output import STARTED, OutputOptions
from tiltmeter.runs import extras

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.models.loading import LoadedModel
    from tiltmeter.studies.reproduce import ReproduceOptions
    from tiltmeter.sweeps.tried import Wanted

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Run nothing but a few batches, and print what would be measured, with the time, memory and disk space "
        "that it would take. Nothing is written.",
    ),
]

FIGURES = 200_000
"""Bytes of a run's figures and tables, roughly, besides the script in its report."""


def print_forecast(wanted: Wanted, loaded: LoadedModel, tokens: TokenSet, out: Path, output: OutputOptions) -> None:
    """Print what a run would take: as a table, or as a JSON object."""
    from tiltmeter.cli.json_lines import json_line
    from tiltmeter.sweeps.dry_run import dry_run
    from tiltmeter.sweeps.forecast import duration, size

    loading = time.perf_counter() - STARTED
    output.say(f"dry run: a few batches are tried; nothing is written to {out}")
    found = dry_run(wanted, loaded, tokens, out)
    report = report_size() * len(found.sites)
    if output.as_json:
        typer.echo(json_line(found.to_json() | {"loading_seconds": loading, "report": report, "out": str(out)}))
        return
    typer.echo(found)
    typer.echo(
        f"Loading took {duration(loading)}; figures and report need {size(report)} more."
        if report
        else f"Loading took {duration(loading)}."
    )


def print_study_forecasts(name: str, wanted: ReproduceOptions, out: Path | None, output: OutputOptions) -> None:
    """Print what a study, or each of all, would take: as tables, or as JSON objects, one a line."""
    from tiltmeter.cli.json_lines import json_line
    from tiltmeter.studies.dry_run import dry_run_study
    from tiltmeter.sweeps.forecast import duration

    output.say("dry run: a few batches of one sweep of each kind are tried; nothing is written")
    folder, found = dry_run_study(name, wanted, out)
    if output.as_json:
        for one in found:
            typer.echo(json_line(one.to_json() | {"out": str(folder)}))
        return
    typer.echo("\n\n".join(map(str, found)))
    if len(found) > 1:
        typer.echo(f"\nTogether about {duration(sum(one.seconds_left for one in found))}.")
    typer.echo(f"The run directory is {folder}.")


def report_size() -> int:
    """Bytes of the figures and the report of a run, roughly; 0 where they are not drawn."""
    if not extras.is_installed("matplotlib"):
        return 0
    from tiltmeter.reports.page import script_size

    return script_size() + FIGURES
