"""Figures and report of a run, drawn from its curves and manifest: nothing is measured here."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from tiltmeter import curves, figures
from tiltmeter.errors import TiltmeterError
from tiltmeter.report import Picture, headline, write_report
from tiltmeter.runs import read_manifest
from tiltmeter.sae_directions import SAE_DIRECTIONS
from tiltmeter.studies import find_figure
from tiltmeter.user_paths import user_path

SWEEP = "sweep"
"""Purpose of a run that belongs to no study."""

TRAINING = "train-sae"
"""Purpose of a run that measures nothing."""

MOST_NAMED = 6
"""Directions that a sentence about a sweep names."""


def publish(run: str | Path) -> Path:
    """Draw a finished run's figures and write its report.

    Returns:
        The path of `report.html`; the figures lie in `figures/` beside it, as PNG and SVG.

    Raises:
        TiltmeterError: `run` is no run, or not a finished one.
    """
    folder = user_path(run)
    manifest = read_manifest(folder)
    if manifest["record"].get("purpose") == TRAINING:
        raise TiltmeterError(f"{folder} is the training of an SAE; look at its training.png and log.csv.")
    if not (folder / "curves.nc").is_file():
        raise TiltmeterError(f"{folder} is a run that has not finished; repeat its command to go on with it.")
    data = curves.load(folder / "curves.nc")
    table = curves.summary(data)
    purpose = str(manifest["record"].get("purpose", SWEEP))
    picture, drawn = _sweep_picture(data, table) if purpose == SWEEP else _study_picture(purpose, data, table)
    figures.save(drawn, (folder / picture.name).parent, Path(picture.name).name)
    title = f"{picture.title}, on {data.attrs['model']}"
    return write_report(folder, title, data, table, manifest, [picture])


def _study_picture(purpose: str, data: xr.Dataset, table: pd.DataFrame) -> tuple[Picture, Figure]:
    study, _, number = purpose.partition("/")
    _, figure = find_figure(study, number)
    picture = Picture(f"figures/figure-{number}", figure.title, figure.caption, figure.finding(data))
    return picture, figure.draw(data, table)


def _sweep_picture(data: xr.Dataset, table: pd.DataFrame) -> tuple[Picture, Figure]:
    names = curves.readout_names(data)[:-1]  # the last is the realised length
    directions = [str(name) for name in data.direction.values]
    if data.sizes["step"] == 1:
        caption, drawn = "Mean of each readout. Whiskers:", figures.bars(data, table, names, data.attrs["site"])
    else:
        caption, drawn = (
            "Mean of each readout along the path. Bands:",
            figures.facets(data, table, names, _panels(directions, data.attrs["site"])),
        )
    caption += " 95 % intervals, bootstrap over sequences."
    picture = Picture("figures/sweep", f"Sweep at {data.attrs['site']}", caption, _last_step(data, table, names[0]))
    return picture, drawn


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
    """A few lengths of the first readout as text, for the terminal."""
    data = curves.load(user_path(run) / "curves.nc")
    name = curves.readout_names(data)[0]
    cells = headline(curves.summary(data), name)
    title = f"{figures.axis_label(data[name])}, mean [95 % interval] by {figures.axis_label(data.step)}"
    return f"{title}\n{cells.to_string()}"
