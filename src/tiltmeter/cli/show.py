"""`tiltmeter show`: a stored run in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tiltmeter.cli.catalogue import catalogue
from tiltmeter.cli.claims import judged
from tiltmeter.cli.early.out import kind_of
from tiltmeter.cli.json_lines import json_line, of_csv
from tiltmeter.cli.output import AsJson


def show(
    run: Annotated[Path, typer.Argument(help="Run directory of a sweep, of crossings, of a study or of a training.")],
    as_json: AsJson = False,
) -> None:
    """Show a stored run in the terminal.

    What was measured, a small table, and each curve in a line; of a study, its claims. A run that has not finished is
    shown as far as it is.
    """
    from tiltmeter.reports.stored_claims import studies_in
    from tiltmeter.reports.terminal import heading
    from tiltmeter.runs.run_directory import MANIFEST, read_manifest
    from tiltmeter.runs.user_paths import user_path

    folder = user_path(run)
    if as_json:
        typer.echo(json_lines_of(folder))
        return
    if not (folder / MANIFEST).is_file() and studies_in(folder, tuple(catalogue()["studies"])):
        typer.echo(judged(folder)[0])  # studies that were run one by one
        return
    manifest = read_manifest(folder)
    kind = kind_of(manifest)
    text, _ = _content(folder, kind, manifest)
    typer.echo("\n".join([f"run:     {folder} ({kind})", *heading(manifest), "", text]))
    if (report := folder / "report.html").is_file():
        typer.echo(f"\nreport:  {report}")


def json_lines_of(folder: Path) -> str:
    """A stored run as JSON lines: what it is, and the rows of its table.

    Raises:
        TiltmeterError: the folder is no run.
    """
    from tiltmeter.runs.run_directory import read_manifest

    manifest = read_manifest(folder)
    kind = kind_of(manifest)
    _, rows = _content(folder, kind, manifest)
    facts = {"run": str(folder), "kind": kind, "created": manifest["created"], "finished": bool(rows)}
    if (report := folder / "report.html").is_file():
        facts["report"] = str(report)
    return "\n".join(json_line(row) for row in [facts, *rows])


def _content(folder: Path, kind: str, manifest: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The table of a run as text, and its rows; none if the run has not finished."""
    from tiltmeter.reports.terminal import (
        crossings_table,
        curves_text,
        read_rows,
        standings_table,
        training_table,
        unfinished,
    )

    if kind not in TABLES:
        return judged(folder)
    rows = read_rows(folder / TABLES[kind])
    if not rows:
        return unfinished(folder), []
    tables = {"sweep": curves_text, "crossings": crossings_table, "compare": standings_table}
    shown = tables.get(kind, training_table)
    return shown(rows, manifest), of_csv(rows)


TABLES = {"sweep": "summary.csv", "crossings": "summary.csv", "compare": "standings.csv", "train-sae": "log.csv"}
"""The table of a run of each kind; studies have claims instead."""
