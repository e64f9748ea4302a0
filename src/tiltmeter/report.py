"""The report of a run: one self-contained HTML page, with no script and no request to anywhere.

Figures are embedded as SVG images, so that nothing inside them can run or clash with the page. Everything that a user
or a file named is escaped.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from tiltmeter.curves import readout_names
from tiltmeter.errors import TiltmeterError
from tiltmeter.figures import axis_label


class Picture(NamedTuple):
    """A figure of the report: `name`.svg in the run's folder, and the words about it."""

    name: str
    title: str
    caption: str
    finding: str


class _Section(NamedTuple):
    title: str
    rows: list[tuple[str, str]]


class _Table(NamedTuple):
    title: str
    corner: str
    cells: pd.DataFrame


def write_report(
    folder: Path,
    title: str,
    curves: xr.Dataset,
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    pictures: Sequence[Picture],
) -> Path:
    """Write `report.html` into the run's folder, where its figures have been saved.

    Args:
        folder: the run.
        title: heading of the page.
        curves: the result, for labels, units and provenance.
        table: its summary, with 95 % intervals.
        manifest: plain JSON; its `identity`, `record` and `created` are shown, the whole stands at the end.
        pictures: the figures, in order.

    Raises:
        TiltmeterError: a figure is not there, or the folder cannot be written.
    """
    path = folder / "report.html"
    try:
        images = [_image(folder / f"{picture.name}.svg") for picture in pictures]
        path.write_text(_page(title, curves, table, manifest, list(zip(pictures, images, strict=True))), "utf-8")
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise TiltmeterError(f"cannot write the report ({reason}); save its figures into {folder} first.") from error
    return path


def headline(table: pd.DataFrame, readout: str, columns: int = 4) -> pd.DataFrame:
    """Pick a few steps of a readout's summary as text, "mean [low, high]" in the readout's units.

    Args:
        table: a summary.
        readout: which readout.
        columns: how many steps, spread over those that are not zero, the last among them.

    Returns:
        A row per direction, a column per step.
    """
    rows = table[table.readout == readout]
    steps = np.array([step for step in rows.step.unique() if step != 0] or [0.0])
    chosen = steps[np.unique(np.linspace(0, len(steps), min(columns, len(steps)) + 1)[1:].round().astype(int)) - 1]
    rows = rows[rows.step.isin(chosen)]
    rows = rows.assign(cell=[_interval(row.mean, row.low, row.high) for row in rows.itertuples(index=False)])
    cells = rows.pivot_table("cell", "direction", "step", aggfunc="first", sort=False)
    return cells.rename(columns="{:.4g}".format)


def _interval(mean: float, low: float, high: float) -> str:
    if np.isnan(mean):
        return "not measured"
    shown = [f"{value:#.3g}".rstrip(".") for value in (mean, low, high)]
    return shown[0] if np.isnan(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _page(
    title: str,
    curves: xr.Dataset,
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    figures: Sequence[tuple[Picture, str]],
) -> str:
    environment = Environment(
        loader=PackageLoader("tiltmeter"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    readouts = [name for name in readout_names(curves) if name != "length"] or ["length"]
    step = axis_label(curves.step)
    return environment.get_template("report.html.j2").render(
        title=title,
        figures=figures,
        short=[_Table(axis_label(curves[name]), step, headline(table, name)) for name in readouts],
        summary=table,
        sections=_sections(curves, manifest),
        manifest=json.dumps(manifest, indent=2, ensure_ascii=False),
        example={"readout": repr(readouts[0]), "direction": repr(str(curves.direction.values[-1]))},
        sequences=curves.sizes["sequence"],
    )


def _image(svg: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def _sections(curves: xr.Dataset, manifest: Mapping[str, Any]) -> list[_Section]:
    """Arrange what was run: the provenance of the curves, then the manifest's identity and record by subject."""
    subjects: dict[str, dict[str, str]] = {
        "in short": {str(name): str(value) for name, value in curves.attrs.items() if name != "manifest"}
    }
    if "created" in manifest:
        subjects["in short"]["created"] = str(manifest["created"])
    for part in ("identity", "record"):
        for subject, facts in manifest.get(part, {}).items():
            where, name = (subject, "") if isinstance(facts, Mapping) else ("in short", subject)
            subjects.setdefault(where, {}).update(_rows(facts, name))
    return [_Section(subject, list(rows.items())) for subject, rows in subjects.items() if rows]


def _rows(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _rows(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _shown(value)


def _shown(value: Any) -> str:
    """Write a value of the manifest for a reader; the whole manifest stands at the page's end."""
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, float) else str(value)
    run = len(value) > 3 and all(isinstance(item, int) for item in value) and {b - a for a, b in pairwise(value)} == {1}
    if run:
        return f"{value[0]} to {value[-1]}"
    shown = ", ".join(_shown(item) for item in value[:32])
    return shown if len(value) <= 32 else f"{shown}, … ({len(value)} in all)"
