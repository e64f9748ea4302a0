"""Figure, tables and report of a finished sweep, from its curves and manifest: nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.analysis.clusters import number_of
from tiltmeter.analysis.massive import MassiveCount
from tiltmeter.analysis.moments import Spectrum
from tiltmeter.analysis.stopping import Stopped
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.reports.charts.curves import axis_label, bars, facets
from tiltmeter.reports.compare import comparison_text, publish_comparison
from tiltmeter.reports.crossings import crossings_text, publish_crossings
from tiltmeter.reports.figure import ReportFigure
from tiltmeter.reports.page import SweepNumbers, headline, write_report
from tiltmeter.runs.run_directory import read_manifest
from tiltmeter.runs.user_paths import user_path

SWEEP = "sweep"
"""Purpose of a run that belongs to no study."""

TRAINING = "train-sae"
"""Purpose of a run that trains an SAE, and has no curves."""

CROSSINGS = "crossings"
"""Key that only the identity of a run of crossings has."""

COMPARE = "compare"
"""Key that only the identity of a comparison has."""

MOST_NAMED = 6
"""Most directions that a sentence about a sweep names."""

FEW = 8
"""With fewer sequences, intervals of skewed values are too narrow (docs/definitions.md)."""


def publish(run: str | Path) -> Path:
    """Draw a finished sweep, tabulate it, and write its report.

    Returns:
        The path of `report.html`; the figure lies in `figures/` beside it, as PNG and SVG, its numbers in `tables/`, as
        CSV and LaTeX.

    Raises:
        TiltmeterError: `run` is not a run, or has not finished.
    """
    folder = user_path(run)
    manifest = read_manifest(folder)
    if manifest["record"].get("purpose") == TRAINING:
        raise TiltmeterError(f"{folder} is the training of an SAE; look at its training.png and log.csv.")
    if CROSSINGS in manifest["identity"]:
        return publish_crossings(folder, manifest)
    if COMPARE in manifest["identity"]:
        return publish_comparison(folder, manifest)
    if not (folder / "curves.nc").is_file():
        raise TiltmeterError(f"{folder} is a run that has not finished; repeat its command to go on with it.")
    data = curves.load(folder / "curves.nc")
    table = curves.summary(data)
    title = f"Sweep at {data.attrs['site']}, on {data.attrs['model']}"
    figures, summary = [_figure(data, table)], _summary(data, manifest)
    return write_report(
        folder, title, summary, figures, manifest, notes=[_note(data)], numbers=SweepNumbers(data, table)
    )


def _summary(data: xr.Dataset, manifest: Mapping[str, Any]) -> list[str]:
    """What was run and on what, in three lines; and, for adaptive stopping, why it stopped."""
    length = manifest["record"]["tokens"]["shape"][1]
    names = [str(name) for name in data.direction.values]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    place = f"{data.attrs['site']} (positions: {data.attrs['positions']})"
    lines = [
        f"{data.attrs['model']} on {data.sizes['sequence']} sequences of {length} tokens of {data.attrs['tokens']}.",
        f"Perturbed at {place} along {', '.join(names[:MOST_NAMED])}{more}.",
        f"{_steps(data)}.",
        *spread(data.attrs),
    ]
    return lines if (stopped := Stopped.of_curves(data)) is None else [*lines, stopped.sentence]


def spread(attrs: Mapping[str, str]) -> list[str]:
    """How many activations at the site are massive, and how their covariance is spread over directions."""
    if "massive" not in attrs:  # curves that were not measured by a sweep
        return []
    covariance, massive = Spectrum(**json.loads(attrs["covariance"])), MassiveCount(**json.loads(attrs["massive"]))
    return [massive.sentence, covariance.sentence, *(f"Warning: {one}" for one in json.loads(attrs["cautions"]))]


def _steps(data: xr.Dataset) -> str:
    step, last = data.step.attrs["long_name"], f"{float(data.step.max()):g}"
    if step == "substitution":
        return "Each activation is replaced by its substitute, in one step"
    label, count = axis_label(data.step), data.sizes["step"]
    return (
        f"One step: {label} {last}"
        if count == 1
        else f"{label}: {count} steps from {float(data.step.min()):g} to {last}"
    )


def _note(data: xr.Dataset) -> str:
    sequences = data.sizes["sequence"]
    independent = number_of(curves.documents_of(data), sequences)
    by = f", by their {independent:,} documents" if independent < sequences else ""
    if Stopped.of_curves(data):
        return (
            "Brackets in tables, bands and whiskers in figures are time-uniform 95 % intervals of the mean over "
            f"sequences{by}, which were taken in random order; they remain valid under the adaptive stopping."
        )
    few = f"; with so few {'documents' if by else 'sequences'} they are too narrow for skewed values"
    return (
        "Brackets in tables, bands and whiskers in figures are 95 % intervals of the mean over "
        f"sequences{by}{few if independent < FEW else ''}."
    )


def _figure(data: xr.Dataset, table: pd.DataFrame) -> ReportFigure:
    names = curves.readout_names(data)[:-1]  # the last is the realised length
    kind = "Whiskers" if data.sizes["step"] == 1 else "Bands"
    method = "time-uniform 95 % intervals" if Stopped.of_curves(data) else "95 % intervals"
    caption = f"Mean of each readout. {kind}: {method} over sequences."
    finding = _last_step(data, table, names[0])
    return ReportFigure("sweep", f"Sweep at {data.attrs['site']}", caption, "", finding, _chart(data, table, names))


def _chart(data: xr.Dataset, table: pd.DataFrame, names: list[str]) -> Chart:
    if data.sizes["step"] == 1:
        return bars(data, table, names, data.attrs["site"])
    return facets(data, table, names, _panels(data))


def _panels(data: xr.Dataset) -> dict[str, list[str]]:
    """Group directions into panels: one panel, or one for each kind of SAE direction with all directions of no SAE."""
    site, saes = data.attrs["site"], json.loads(data.attrs["saes"])
    kinds = {str(name): _kind_of_sae(str(name), saes) for name in data.direction.values}
    shown = [kind for kind in dict.fromkeys(kinds.values()) if kind]
    if len(shown) < 2:
        return {site: list(kinds)}
    return {f"{kind} at {site}": [name for name, of in kinds.items() if of in ("", kind)] for kind in shown}


def _kind_of_sae(direction: str, saes: Collection[str]) -> str:
    """The kind of a direction of an SAE of the run (`sae-error` of `sae-error:NAME`); else empty."""
    kind, _, sae = direction.partition(":")
    return kind if sae in saes else ""


def _last_step(data: xr.Dataset, table: pd.DataFrame, readout: str) -> str:
    last = table[(table.readout == readout) & (table.step == table.step.max()) & table["mean"].notna()]
    if last.empty:
        return f"{readout} was not measured: it is defined at none of these positions, or no position is averaged."
    found = [f"{row.direction} {row.mean:.3g} [{row.low:.3g}, {row.high:.3g}]" for row in last.itertuples(index=False)]
    rest = f", and {len(found) - MOST_NAMED} more in the table" if len(found) > MOST_NAMED else ""
    step = data.step.attrs["long_name"]
    place = "with the substitutes" if step == "substitution" else f"at the last {step}, {table.step.max():g}"
    return f"{readout} {place}: {', '.join(found[:MOST_NAMED])}{rest}."


def short_table(run: str | Path) -> str:
    """A few steps of the first readout as text, for the terminal; for a run of crossings, their medians."""
    folder = user_path(run)
    if CROSSINGS in (manifest := read_manifest(folder))["identity"]:
        return crossings_text(folder, manifest)
    if COMPARE in manifest["identity"]:
        return comparison_text(folder)
    data = curves.load(folder / "curves.nc")
    name = curves.readout_names(data)[0]
    cells = headline(curves.summary(data), name)
    title = f"{axis_label(data[name])}, mean [95 % interval] by {axis_label(data.step)}"
    return f"{title}\n{cells.to_string()}"
