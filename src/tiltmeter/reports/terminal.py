"""A stored run in the terminal: what was measured, a small table, and each curve in a line. Without pandas, at once."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltmeter.reports.stored_claims import STUDY
from tiltmeter.reports.tables.format import with_interval
from tiltmeter.runs.run_directory import SHARDS

BLOCKS = "▁▂▃▄▅▆▇█"
"""The heights of a curve, from the least value of a table to its largest."""

MOST_STEPS = 40
"""The most steps of a curve that a line shows, evenly spread."""

COLUMNS = 4
"""Steps whose means a table shows."""

UNITS = {
    "absolute": "length (L2)",
    "pair-distance": "length (L2)",  # summaries have absolute lengths
    "norm": "length (‖x‖)",
    "target": "part of the way to the target",
    "sphere": "angle (degrees)",
    "substitute": "substitution",
}
"""What the steps of a path are, by the unit of its lengths or its kind."""

Row = Mapping[str, str]


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if there is no such file."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def heading(manifest: Mapping[str, Any]) -> list[str]:
    """What was measured, on what, when and with which versions."""
    identity, record = manifest["identity"], manifest["record"]
    lines = _of_model(identity["model"], record["model"]) if "model" in record else []
    shape = record.get("tokens", {}).get("shape")
    if shape:
        lines.append(f"tokens:  {record['tokens']['name']}, sequences of {shape[1]}")
    if "sweep" in identity:
        named = identity.get("compare", {}).get("vectors") or identity["order"]["directions"]
        stream = record.get("policies", {}).get("stream", identity["sweep"]["stream"])  # of an RMSNorm model, raw
        lines += _of_sweep(identity["sweep"], named, shape, stream.partition(":")[0])
    if "crossings" in identity:
        lines.append(f"goal:    {identity['sweep']['readouts'][0]} crosses {_said(identity['crossings'])}")
    if "training" in identity:
        lines.append(f"SAE:     {_said(identity['training'])}")
    if record.get("purpose") == STUDY:
        lines.append(f"study:   {identity['study']}, size {identity['size']}, layer {identity['layer']}")
    versions = [
        f"{name} {record['versions'][name]}" for name in ("tiltmeter", "torch") if name in record.get("versions", {})
    ]
    return [*lines, f"created: {manifest['created']}{' with ' if versions else ''}{', '.join(versions)}"]


def _of_model(identity: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    revision = "" if record["revision"] == "local" else f", revision {record['revision']}"
    return [f"model:   {record['name']}{revision}; {identity['precision']} on {identity['device']}"]


def _said(settings: Mapping[str, Any]) -> str:
    """Settings in a line, without those that were not given."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value not in (None, [], ()))


def _of_sweep(
    sweep: Mapping[str, Any], directions: Sequence[str], shape: Sequence[int] | None, stream: str
) -> list[str]:
    path = sweep["path"]
    steps = path.get("lengths") or path.get("degrees") or []
    unit = path.get("unit", "degrees" if "degrees" in path else "")
    some = f"{len(steps)} from {min(steps):g} to {max(steps):g} ({unit})" if steps else "one, the substitute"
    statistics = min(sweep["statistics_sequences"], shape[0]) if shape else sweep["statistics_sequences"]
    return [
        f"site:    {sweep['site']} ({stream}), positions {sweep['positions']}, base {sweep['base']}",
        f"along:   {', '.join(directions)}",
        f"steps:   {some}",
        f"counted: {sweep['sequences']} sequences, {statistics} for the statistics; seed {sweep['seed']}",
    ]


def curves_text(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    """A table for each readout of a sweep's summary: means at a few steps, and every curve as a line of blocks."""
    readouts = [name for name in dict.fromkeys(row["readout"] for row in rows) if name != "length"]
    path = manifest["identity"]["sweep"]["path"]
    unit = UNITS.get(path.get("unit", path["kind"]), "")
    return "\n\n".join(_table([row for row in rows if row["readout"] == one], one, unit) for one in readouts)


def _table(rows: Sequence[Row], readout: str, unit: str) -> str:
    curves: dict[str, list[Row]] = {}
    for row in rows:
        curves.setdefault(row["direction"], []).append(row)
    steps = [row["step"] for row in next(iter(curves.values()))]
    shown = [steps[at] for at in evenly([at for at, step in enumerate(steps) if float(step)] or [0], COLUMNS)]
    values = [value for row in rows if math.isfinite(value := _number(row["mean"]))]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    lines = [["", *(f"{float(step):g}" for step in shown), "curve"]]
    for name, curve in curves.items():
        cells = [_cell(row, "mean", "low", "high") for row in curve if row["step"] in shown]
        lines.append([name, *cells, line_of_blocks([_number(row["mean"]) for row in curve], low, high)])
    scale = f"curves from {low:.3g} ({BLOCKS[0]}) to {high:.3g} ({BLOCKS[-1]})"
    title = f"{readout}: mean [95 % interval] by {unit}, n = {rows[0]['n']}; {scale}"
    return "\n".join([title, aligned(lines)])


def crossings_table(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    """The medians of a run of crossings."""
    unit = manifest["record"]["units"]
    lines = [["", f"median, {unit} [95 % interval]", "crossed", "never", "not measured", "points per curve"]]
    for row in rows:
        counts = [row["n"], row["censored"], row["missing"], f"{_number(row['points']):.1f}"]
        lines.append([row["direction"], _cell(row, "median", "median_low", "median_high"), *counts])
    return aligned(lines)


def standings_table(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    """Where each vector of a comparison stands among the draws of each baseline, at the largest length."""
    longest = max(_number(row["length"]) for row in rows)
    lines = [["vector", "baseline", "mean KL", "ratio [95 % interval]", "percentile", "p (curve)"]]
    for row in rows:
        if _number(row["length"]) == longest:
            ratio = _cell(row, "ratio", "ratio_low", "ratio_high")
            numbers = [f"{_number(row['percentile']):.1f}", f"{_number(row['p_curve']):.2g}"]
            lines.append([row["vector"], row["baseline"], f"{_number(row['mean']):.3g}", ratio, *numbers])
    return f"at length {longest:g} pair distances\n{aligned(lines)}"


def training_table(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    """The last evaluations of a training."""
    lines = [["tokens", "L0", "explained variance", "loss increase", "alive"]]
    for row in rows[-5:]:
        increase = _number(row["loss"]) - _number(row["clean_loss"])
        numbers = [f"{_number(row['l0']):.1f}", f"{_number(row['explained_variance']):.3f}", f"{increase:.3f}"]
        lines.append([f"{_number(row['tokens']):.0f}", *numbers, f"{_number(row['alive']):.0f}"])
    return aligned(lines)


def unfinished(folder: Path) -> str:
    """How far a run is that has no summary yet."""
    shards = len(list((folder / SHARDS).glob("*.safetensors")))
    return f"not finished: {shards} files of results are stored; the command that made the run goes on with it"


def line_of_blocks(values: Sequence[float], low: float, high: float) -> str:
    """A curve as blocks whose heights go from `low` to `high`; a gap where nothing was measured."""
    top = len(BLOCKS) - 1
    scale = top / (high - low) if high > low else 0.0
    chosen = [values[at] for at in evenly(range(len(values)), MOST_STEPS)]
    return "".join(BLOCKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in chosen)


def evenly(items: Sequence[int], most: int) -> list[int]:
    """At most this many of the items, evenly spread, the last among them."""
    count = min(most, len(items))
    return [items[(at + 1) * len(items) // count - 1] for at in range(count)]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A table whose columns are as wide as their widest cell; the first and what is no number are to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 or line[at] == "curve" or set(line[at]) & set(BLOCKS) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(row: Row, middle: str, low: str, high: str) -> str:
    return with_interval(*(_number(row[key]) for key in (middle, low, high)))


def _number(text: str) -> float:
    return float(text) if text else math.nan
