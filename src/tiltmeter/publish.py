"""Figure, tables and report of a finished sweep, made from its curves and manifest: nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from tiltmeter import curves
from tiltmeter.charts import Chart
from tiltmeter.crossing_publish import crossings_text, publish_crossings
from tiltmeter.curve_charts import axis_label, bars, facets
from tiltmeter.errors import TiltmeterError
from tiltmeter.exhibits import Exhibit
from tiltmeter.report import Numbers, headline, write_report
from tiltmeter.runs import read_manifest
from tiltmeter.sae_directions import SAE_DIRECTIONS
from tiltmeter.stopping import Stopped
from tiltmeter.user_paths import user_path

SWEEP = "sweep"
"""Purpose of a run that belongs to no study."""

TRAINING = "train-sae"
"""Purpose of a run that measures nothing."""

CROSSINGS = "crossings"
"""What the identity of a run of crossings has, and no other."""

MOST_NAMED = 6
"""Directions that a sentence about a sweep names."""

FEW = 30
"""Of fewer sequences bootstrap intervals are too narrow."""


def publish(run: str | Path) -> Path:
    """Draw a finished sweep, table it, and write its report.

    Returns:
        The path of `report.html`; the figure lies in `figures/` beside it, as PNG and SVG, its numbers in `tables/`, as
        CSV and LaTeX.

    Raises:
        TiltmeterError: `run` is no run, or not a finished one.
    """
    folder = user_path(run)
    manifest = read_manifest(folder)
    if manifest["record"].get("purpose") == TRAINING:
        raise TiltmeterError(f"{folder} is the training of an SAE; look at its training.png and log.csv.")
    if CROSSINGS in manifest["identity"]:
        return publish_crossings(folder, manifest)
    if not (folder / "curves.nc").is_file():
        raise TiltmeterError(f"{folder} is a run that has not finished; repeat its command to go on with it.")
    data = curves.load(folder / "curves.nc")
    table = curves.summary(data)
    title = f"Sweep at {data.attrs['site']}, on {data.attrs['model']}"
    exhibits, summary = [_exhibit(data, table)], _summary(data, manifest)
    return write_report(folder, title, summary, exhibits, manifest, notes=[_note(data)], numbers=Numbers(data, table))


def _summary(data: xr.Dataset, manifest: Mapping[str, Any]) -> list[str]:
    """What was run and on what, in three lines, and why it stopped where it was to stop by itself."""
    length = manifest["record"]["tokens"]["shape"][1]
    names = [str(name) for name in data.direction.values]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    place = f"{data.attrs['site']} (positions: {data.attrs['positions']})"
    lines = [
        f"{data.attrs['model']} on {data.sizes['sequence']} sequences of {length} tokens of {data.attrs['tokens']}.",
        f"Moved at {place} along {', '.join(names[:MOST_NAMED])}{more}.",
        f"{_steps(data)}.",
    ]
    return lines if (stopped := Stopped.of_curves(data)) is None else [*lines, stopped.sentence]


def _steps(data: xr.Dataset) -> str:
    step, last = data.step.attrs["long_name"], f"{float(data.step.max()):g}"
    if step == "substitution":
        return "From the activation to its substitutes, in one step"
    label, count = axis_label(data.step), data.sizes["step"]
    return (
        f"One step: {label} {last}"
        if count == 1
        else f"{label}: {count} steps from {float(data.step.min()):g} to {last}"
    )


def _note(data: xr.Dataset) -> str:
    if Stopped.of_curves(data):
        return (
            "Brackets in tables, bands and whiskers in figures are time-uniform 95 % intervals of the mean over "
            "sequences, which were taken in random order: they hold although it stopped as soon as they were narrow."
        )
    narrow = "; of so few sequences they are too narrow" if data.sizes["sequence"] < FEW else ""
    return (
        "Brackets in tables, bands and whiskers in figures are 95 % intervals of the mean, bootstrapped over "
        f"sequences{narrow}."
    )


def _exhibit(data: xr.Dataset, table: pd.DataFrame) -> Exhibit:
    names = curves.readout_names(data)[:-1]  # the last is the realised length
    kind = "Whiskers" if data.sizes["step"] == 1 else "Bands"
    method = "time-uniform" if Stopped.of_curves(data) else "bootstrap"
    caption = f"Mean of each readout. {kind}: 95 % intervals, {method} over sequences."
    finding = _last_step(data, table, names[0])
    return Exhibit("sweep", f"Sweep at {data.attrs['site']}", caption, "", finding, _chart(data, table, names))


def _chart(data: xr.Dataset, table: pd.DataFrame, names: list[str]) -> Chart:
    if data.sizes["step"] == 1:
        return bars(data, table, names, data.attrs["site"])
    return facets(data, table, names, _panels([str(name) for name in data.direction.values], data.attrs["site"]))


def _panels(directions: list[str], site: str) -> dict[str, list[str]]:
    """One panel; where several kinds of direction belong to SAEs, one for each of them, with all that need none."""
    kinds = list(dict.fromkeys(name.partition(":")[0] for name in directions if _is_of_sae(name)))
    if len(kinds) < 2:
        return {site: directions}
    return {
        f"{kind} at {site}": [name for name in directions if not _is_of_sae(name) or name.startswith(f"{kind}:")]
        for kind in kinds
    }


def _is_of_sae(direction: str) -> bool:
    return direction.partition(":")[0] in SAE_DIRECTIONS


def _last_step(data: xr.Dataset, table: pd.DataFrame, readout: str) -> str:
    last = table[(table.readout == readout) & (table.step == table.step.max()) & table["mean"].notna()]
    if last.empty:
        return f"{readout} was not measured: at these positions no token has it, or none is averaged."
    found = [f"{row.direction} {row.mean:.3g} [{row.low:.3g}, {row.high:.3g}]" for row in last.itertuples(index=False)]
    rest = f", and {len(found) - MOST_NAMED} more in the table" if len(found) > MOST_NAMED else ""
    step = data.step.attrs["long_name"]
    place = "with the substitutes" if step == "substitution" else f"at the last {step}, {table.step.max():g}"
    return f"{readout} {place}: {', '.join(found[:MOST_NAMED])}{rest}."


def short_table(run: str | Path) -> str:
    """A few lengths of the first readout as text, for the terminal; or where curves cross."""
    folder = user_path(run)
    if CROSSINGS in (manifest := read_manifest(folder))["identity"]:
        return crossings_text(folder, manifest)
    data = curves.load(folder / "curves.nc")
    name = curves.readout_names(data)[0]
    cells = headline(curves.summary(data), name)
    title = f"{axis_label(data[name])}, mean [95 % interval] by {axis_label(data.step)}"
    return f"{title}\n{cells.to_string()}"
