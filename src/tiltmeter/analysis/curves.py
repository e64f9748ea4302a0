"""Curves: the results of a sweep as a plain labelled `xarray.Dataset`, and its files and tables.

A dataset of curves has

- the dimensions `direction` (names), `step` (how far along the path, with its units in `step.attrs`), `sequence`
  (ids) and, if positions are kept separate, `position`;
- one float64 variable per readout, named by the readout (`kl`, `l2@blocks.5.hook_resid_post`), and `length`, the
  realised L2 of the perturbation. Without `position`, a value is the mean over the averaged positions of one sequence;
  that of `length` counts those among them that are perturbed, or all perturbed ones if no averaged one is. NaN is
  "not measured". Each has `long_name` and `units`;
- `tokens` (direction, sequence): how many tokens were averaged;
- the coordinate `document` of `sequence`: which document of the token set each sequence is from;
- of a sweep at several sites, `site` as the first dimension, with the coordinates `pair_distance` and `mean_norm`;
- attributes, text or a number: where it came from, `pair_distance` and `mean_norm` in L2, `path_unit` (the unit in
  which the lengths were given: `absolute`, `norm`, `target`, `pair-distance`; `degrees`, `substitution`), and the
  run's manifest as JSON under `manifest`.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Float64, Int

from tiltmeter.analysis.confidence_sequences import sequential_mean
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.extras import is_installed
from tiltmeter.runs.run_directory import Run
from tiltmeter.runs.user_paths import user_path

_AXES = ("direction", "step", "sequence")
"""What all readouts have; there may be others."""

_DIMS = ("direction", "step", "sequence", "position")
_LABELS = {
    "kl": ("KL(clean ‖ perturbed)", "nats"),
    "js": ("JS(clean, perturbed)", "nats"),
    "loss": ("next-token loss", "nats"),
    "length": ("realised perturbation length", "L2"),
    "tokens": ("tokens averaged", "tokens"),
    "l2": ("distance at {site}", "L2"),
    "cos": ("cosine at {site}", "1"),
    "logit-diff": ("difference of two logits", "nats"),
    "prob": ("probability of a token", "1"),
    "top1": ("fraction with the clean run's most likely token", "1"),
    "rank": ("rank of the clean run's most likely token", "1"),
    "entropy": ("entropy of the next-token distribution", "nats"),
}


class Axes(NamedTuple):
    """The coordinates of a block of curves.

    `units` are those of `steps`: "L2", "‖x‖", "of the way to the target" or "degrees". `positions` is None
    unless positions are kept separate, `documents` where each sequence is a document of its own.
    """

    directions: Sequence[str]
    steps: Sequence[float]
    units: str
    sequences: Sequence[int]
    positions: Sequence[int] | None = None
    documents: Sequence[int] | None = None


def build(
    readouts: Mapping[str, Float[np.ndarray, "direction step sequence *position"]],
    tokens: Int[np.ndarray, "direction sequence"],
    axes: Axes,
    attrs: Mapping[str, str | float],
    labels: Mapping[str, str] = MappingProxyType({}),
) -> xr.Dataset:
    """Build a dataset of curves from plain arrays and their coordinates.

    Args:
        readouts: values by readout, `length` among them, each in the units of its readout (nats for `kl`).
        tokens: how many tokens of each sequence were averaged.
        axes: names of directions, steps, sequences and positions.
        attrs: provenance, text or numbers.
        labels: how figures name readouts whose names do not say it, such as those of tokens.

    Raises:
        TiltmeterError: a shape that does not fit the axes, a repeated name, or an attribute neither text nor a float.
    """
    wrong = [name for name, value in attrs.items() if not isinstance(value, str | float)]
    if wrong:
        raise TiltmeterError(
            f"the curves' attributes {', '.join(wrong)} are neither text nor floats; write them as text or as JSON."
        )
    coords = _coords(axes)
    variables = {}
    for name, values in {**readouts, "tokens": tokens}.items():
        dims = ("direction", "sequence") if name == "tokens" else tuple(dim for dim in _DIMS if dim in coords)
        wanted = tuple(coords[dim].size for dim in dims)
        if np.shape(values) != wanted:
            raise TiltmeterError(
                f"{name} has the shape {np.shape(values)}; its axes {', '.join(dims)} ask for {wanted}."
            )
        variables[name] = xr.Variable(dims, values, _attrs(name, labels.get(name)))
    return _canonical(xr.Dataset(variables, coords, dict(attrs)))


def _coords(axes: Axes) -> dict[str, xr.Variable]:
    coords = {
        "direction": xr.Variable("direction", np.asarray(axes.directions, np.str_)),
        "step": xr.Variable("step", np.asarray(axes.steps, np.float64), _step_attrs(axes.units)),
        "sequence": xr.Variable("sequence", np.asarray(axes.sequences, np.int64)),
    }
    if axes.positions is not None:
        coords["position"] = xr.Variable("position", np.asarray(axes.positions, np.int64))
    for name, values in coords.items():
        if len(np.unique(values)) != values.size:
            raise TiltmeterError(f"the axis {name} of the curves names something twice; name each {name} once.")
    of_each = axes.sequences if axes.documents is None else axes.documents
    return coords | {"document": xr.Variable("sequence", np.asarray(of_each, np.int64))}


def kind_of(readout: str) -> str:
    """The kind of a readout: `l2` of `l2@blocks.5.hook_resid_post`, `prob` of `prob:#464`."""
    return readout.partition("@")[0].partition(":")[0]


def _attrs(readout: str, label: str | None = None) -> dict[str, str]:
    long_name, units = _LABELS.get(kind_of(readout), (readout, "1"))
    site = readout.partition("@")[2]
    return {"long_name": label or long_name.format(site=site), "units": units}


def _step_attrs(units: str) -> dict[str, str]:
    if units == "substitution":
        return {"long_name": "substitution", "units": "1"}
    return {"long_name": "angle" if units == "degrees" else "perturbation length", "units": units}


def readout_names(curves: xr.Dataset) -> list[str]:
    """List the readouts (and `length`), in the dataset's order."""
    return [str(name) for name in curves.data_vars if name != "tokens"]


def merge(shards: Iterable[xr.Dataset], sequences: Sequence[int] | None = None) -> xr.Dataset:
    """Merge shards into one dataset, in sequence order.

    Args:
        shards: datasets that differ only in their sequences.
        sequences: the ids that must be there; None requires consecutive ids.

    Raises:
        TiltmeterError: no shards, a repeated or missing sequence, or shards that differ in more than their sequences.
    """
    parts = list(shards)
    if not parts:
        raise TiltmeterError("there are no shards to merge; run the sweep first.")
    ids = np.sort(np.concatenate([part.sequence.values for part in parts]))
    wanted = np.arange(ids[0], ids[-1] + 1) if sequences is None else np.sort(np.asarray(sequences))
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise TiltmeterError(f"sequence {repeated[0]} is in two shards; each sequence must be measured once.")
    different = np.setxor1d(ids, wanted)
    if len(different):
        problem = "is in no shard" if different[0] in wanted else "was not asked for"
        raise TiltmeterError(f"sequence {different[0]} {problem}; run the sweep again to complete its shards.")
    first = parts[0]
    for part in parts[1:]:
        if not part.isel(sequence=[]).identical(first.isel(sequence=[])):
            raise TiltmeterError("the shards differ in their axes, readouts or attributes; they are not of one sweep.")
    together = xr.concat(parts, "sequence", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return _canonical(together)


def to_netcdf(curves: xr.Dataset) -> bytes:
    """Write the dataset as the bytes of a NetCDF 3 file: equal datasets give equal bytes."""
    return bytes(_canonical(curves).to_netcdf(engine="scipy"))


def load(path: str | Path) -> xr.Dataset:
    """Read a dataset of curves from a run directory, or from its NetCDF file `curves.nc`, wholly into memory.

    Raises:
        TiltmeterError: there is no such file, or it is not a NetCDF file of curves.
    """
    path = user_path(path)
    path = path / "curves.nc" if path.is_dir() else path
    try:
        return _canonical(xr.load_dataset(io.BytesIO(path.read_bytes()), engine="scipy"))
    except OSError as error:
        raise TiltmeterError(f"cannot read {path} ({error.strerror}); name the curves.nc of a run.") from error
    except Exception as error:  # parsing a damaged file may fail in any way
        raise TiltmeterError(f"{path} is not a complete NetCDF file of curves; repeat the run's command.") from error


def _canonical(curves: xr.Dataset) -> xr.Dataset:
    """Bring curves into the order and dtypes that `build`, `merge` and `load` all return.

    NetCDF 3 keeps neither 64-bit integers nor the order of variables of different shapes.
    """
    dims = [name for name in _DIMS if name in curves.dims]
    kinds = {"direction": np.str_, "step": np.float64, "sequence": np.int64, "position": np.int64}
    coords = {name: curves[name].variable.astype(kinds[name]) for name in dims}
    if "document" in curves.coords:
        coords["document"] = curves["document"].variable.astype(np.int64)
    variables = {name: curves[name].variable.astype(np.float64).transpose(*dims) for name in readout_names(curves)}
    variables["tokens"] = curves["tokens"].variable.astype(np.int64).transpose("direction", "sequence")
    return xr.Dataset(variables, coords, curves.attrs).sortby("sequence").drop_encoding()


def to_frame(curves: xr.Dataset) -> pd.DataFrame:
    """A table with a row per direction, step, sequence (and position), `document`, a column per readout, `tokens`."""
    dims = [name for name in _DIMS if name in curves.dims]
    frame = curves.to_dataframe(dim_order=dims).reset_index()
    beside = [name for name in ("document",) if name in frame]
    return frame[[*dims, *beside, *(name for name in frame if name not in (*dims, *beside))]]


def checked(given: Any) -> xr.Dataset:
    """Curves that a user has at hand, perhaps after a selection: an axis of which one label was taken is one again.

    Raises:
        TiltmeterError: they are no curves, or have lost an axis.
    """
    if not isinstance(given, xr.Dataset):
        raise TiltmeterError(
            f"This is of type {type(given).__name__}; give curves, as run_sweep or load_curves returns them."
        )
    single = [name for name in _AXES if name in given.coords and name not in given.dims]
    found = given.expand_dims(single)
    if "sequence" in single and "document" in given.coords:
        found = found.assign_coords(document=("sequence", np.atleast_1d(given["document"].values)))
    if "step" in single and "tokens" in given:
        found["tokens"] = given["tokens"].expand_dims([name for name in single if name != "step"])
    if lost := [name for name in _AXES if name not in found.dims]:
        raise TiltmeterError(
            f"The curves have no axis {lost[0]}; give them as run_sweep returns them, or a selection of these."
        )
    return found


def sequence_means(curves: xr.Dataset) -> Float64[np.ndarray, "direction step readout sequence"]:
    """The value of every readout (and `length`) for every sequence, averaged over positions if kept separate."""
    names = readout_names(curves)
    per_sequence = curves[names].mean("position") if "position" in curves.dims else curves[names]
    return np.stack([per_sequence[name].transpose(*_AXES).values for name in names], axis=2)


def documents_of(curves: xr.Dataset | xr.DataArray) -> Int[np.ndarray, " sequence"] | None:
    """Which document each sequence is from; None where curves do not say, as those of earlier versions."""
    return curves["document"].values.astype(np.int64) if "document" in curves.coords else None


def summary(curves: xr.Dataset, confidence: float = 0.95) -> pd.DataFrame:
    """Average every readout over sequences, with its interval, one row each.

    Every sequence has equal weight, whatever its number of tokens; separate positions are averaged within their
    sequence first. The interval is a t interval corrected for skewness (`tiltmeter.analysis.intervals`), over documents
    where several sequences are from one.
    If the sweep stopped at a target precision (the attribute `stopping`), that would be invalid, and it is time-uniform
    (`tiltmeter.analysis.confidence_sequences`).

    Returns:
        Columns `direction`, `step`, `readout`, `mean`, `low`, `high` (units of the readout) and `n` (sequences), in the
        order of the dataset's own axes and readouts; before them `site`, if there are several; after them `documents`,
        where there are fewer of these than sequences. A curve that was not measured has NaN and n = 0.

    Raises:
        TiltmeterError: these are no curves; a confidence outside (0, 1).
    """
    curves = checked(curves)
    if "site" in curves.dims:
        tables = {str(site): summary(curves.sel(site=site), confidence) for site in curves.site.values}
        return pd.concat(tables, names=["site"]).reset_index(level="site").reset_index(drop=True)
    names, values = readout_names(curves), sequence_means(curves)
    documents = documents_of(curves)
    average = sequential_mean if "stopping" in curves.attrs else mean_interval
    interval = average(values, confidence, documents)
    rows = pd.MultiIndex.from_product(
        [curves.direction.values, curves.step.values, names], names=["direction", "step", "readout"]
    ).to_frame(index=False)
    table = rows.assign(**{name: column.ravel() for name, column in interval._asdict().items()})
    if documents is None or len(np.unique(documents)) == len(documents):
        return table
    counts = [len(np.unique(documents[known])) for known in ~np.isnan(values.reshape(len(table), -1))]
    return table.assign(documents=counts)


def write_table(run: Run, name: str, table: pd.DataFrame) -> None:
    """Store a table in a run directory as `NAME.csv` and, where pyarrow is installed, as `NAME.parquet`."""
    run.write_bytes(f"{name}.csv", to_csv(table))
    if is_installed("pyarrow"):
        run.write_bytes(f"{name}.parquet", to_parquet(table))


def read_table(file: Path) -> pd.DataFrame:
    """Read a table that `write_table` stored, from its CSV; every number is as it was.

    Raises:
        TiltmeterError: the file is missing or damaged.
    """
    try:
        return pd.read_csv(file, float_precision="round_trip", keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # pandas's own are of ValueError
        raise TiltmeterError(f"{file} cannot be read ({error}); repeat the run's command.") from error


def to_csv(table: pd.DataFrame) -> bytes:
    """Write the table as CSV (UTF-8, every digit of a float): equal tables give equal bytes."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def to_parquet(table: pd.DataFrame) -> bytes:
    """Write the table as Parquet: equal tables give equal bytes under equal versions of pandas and pyarrow."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()
