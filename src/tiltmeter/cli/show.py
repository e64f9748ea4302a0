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

    What was measured, a small table, and each curve in a line; of a study, its claims; of a sweep at several sites, one
    site after another. A run that has not finished is shown as far as it is.
    """
    from tiltmeter.reports.stored_claims import studies_in
    from tiltmeter.runs.run_directory import MANIFEST
    from tiltmeter.runs.user_paths import user_path

    folder = user_path(run)
    is_run = (folder / MANIFEST).is_file()
    if not is_run and not as_json and studies_in(folder, tuple(catalogue()["studies"])):
        typer.echo(judged(folder)[0])  # studies that were run one by one
        return
    runs = [folder] if is_run else runs_at_sites(folder) or [folder]
    typer.echo("\n".join(map(json_lines_of, runs)) if as_json else "\n\n".join(map(text_of, runs)))


def runs_at_sites(folder: Path) -> list[Path]:
    """The runs of a sweep at several sites, in the order in which they were made."""
    from tiltmeter.runs.run_directory import MANIFEST, read_manifest

    made = {file.parent: read_manifest(file.parent) for file in folder.glob(f"*/{MANIFEST}")}
    found = {run: manifest for run, manifest in made.items() if kind_of(manifest) == "sweep"}
    return sorted(found, key=lambda run: (found[run]["created"], run))


def text_of(folder: Path) -> str:
    """A stored run as text: what it is, its table, and where its report is.

    Raises:
        TiltmeterError: the folder is no run.
    """
    from tiltmeter.reports.terminal import heading
    from tiltmeter.runs.run_directory import read_manifest

    manifest = read_manifest(folder)
    kind = kind_of(manifest)
    text, _ = _content(folder, kind, manifest)
    report = [f"\nreport:  {file}"] if (file := folder / "report.html").is_file() else []
    return "\n".join([f"run:     {folder} ({kind})", *heading(manifest), "", text, *report])


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
