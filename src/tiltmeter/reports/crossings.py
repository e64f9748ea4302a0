"""Figure and report of a run of crossings, from its tables and manifest: nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tiltmeter.analysis.curves import read_table
from tiltmeter.analysis.shape_tables import shape_column
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.reports.charts.shapes import panels
from tiltmeter.reports.figure import ReportFigure
from tiltmeter.reports.page import write_report

NOTE = (
    "Crossings are found by bisection. If a curve crosses the threshold upward more than once, one of these crossings "
    "is found: the first, unless the guard misses it (docs/crossings.md). Brackets are 95 % intervals of the median "
    "over sequences; a curve that never crosses counts as infinite."
)


def publish_crossings(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Draw the distribution of crossings, and write the report.

    Args:
        folder: a run of crossings.
        manifest: its manifest.

    Returns:
        The path of `report.html`; the figure lies in `figures/` beside it, as PNG and SVG, its numbers in `tables/`.

    Raises:
        TiltmeterError: the run has not finished, or the folder cannot be written.
    """
    if not (folder / "summary.csv").is_file():
        raise TiltmeterError(f"{folder} is a run that has not finished; repeat its command to go on with it.")
    table, summary = (read_table(folder / f"{name}.csv") for name in ("crossings", "summary"))
    title = f"Crossings at {manifest['identity']['sweep']['site']}, on {manifest['record']['model']['name']}"
    lines = [*_asked(manifest, table), f"{_cost(summary).capitalize()}."]
    return write_report(folder, title, lines, [_figure(table, summary, manifest)], manifest, notes=[NOTE])


def crossings_text(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The medians of each direction and what they cost, for the terminal."""
    summary = read_table(folder / "summary.csv")
    cells = pd.DataFrame(
        {
            "median [95 % interval]": _medians(summary),
            "crossed": summary.n,
            "never": summary.censored,
            "not measured": summary.missing,
            "points per curve": summary.points.map("{:.1f}".format),
        }
    ).set_index(summary.direction.rename(None))
    return f"{_what(manifest)}, over sequences\n{cells.to_string()}\n{_cost(summary)}"


def _what(manifest: Mapping[str, Any]) -> str:
    readout, goal = manifest["identity"]["sweep"]["readouts"][0], manifest["identity"]["crossings"]
    threshold = f"{goal['threshold']:g}" if goal["fraction"] is None else f"{goal['fraction']:g} of its last value"
    return f"step where {readout} crosses {threshold} ({manifest['record']['units']})"


def _medians(summary: pd.DataFrame) -> list[str]:
    return [f"{row.median:.4g} [{row.median_low:.4g}, {row.median_high:.4g}]" for row in summary.itertuples()]


def _cost(summary: pd.DataFrame) -> str:
    run, scan = summary.passes.sum(), summary.scan_passes.sum()
    return f"perturbed-token passes: {run:,}, {run / scan:.1%} of the {scan:,} passes of a full scan"


def _asked(manifest: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    sweep, record = manifest["identity"]["sweep"], manifest["record"]
    sequences, length = table.sequence.nunique(), record["tokens"]["shape"][1]
    return [
        f"{record['model']['name']} on {sequences} sequences of {length} tokens of {record['tokens']['name']}.",
        f"Perturbed at {sweep['site']} (positions: {sweep['positions']}).",
        f"Measured: {_what(manifest)}.",
    ]


def _figure(table: pd.DataFrame, summary: pd.DataFrame, manifest: Mapping[str, Any]) -> ReportFigure:
    samples = {str(name): shape_column(rows, "crossing_at") for name, rows in table.groupby("direction", sort=False)}
    found = zip(summary.direction, _medians(summary), summary.n, summary.censored, strict=True)
    return ReportFigure(
        "crossings",
        "Where curves cross",
        "Left: histogram of the crossings, one curve per sequence. Right: cumulative fraction of curves that have "
        "crossed; curves that never cross count in the denominator, so lines may end below one.",
        "",
        "; ".join(f"{name}: median {median}, {n} crossed, {never} never" for name, median, n, never in found) + ".",
        Chart((panels(samples, _what(manifest)),), share=()),
    )
