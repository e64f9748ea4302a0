"""Tables of curve statistics: every statistic of every curve of a sweep, and their summary."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int

from tiltmeter.analysis.curves import checked, kind_of
from tiltmeter.analysis.shapes import (
    Shape,
    auc_step,
    censored_last,
    crossing,
    max_slope_step,
    nonlinearity_step,
    plateau_step,
    relative,
)
from tiltmeter.errors import TiltmeterError

STEP_STATISTICS = ("max_slope", "auc", "nonlinearity")
"""The statistics that assume equally spaced steps and need no threshold."""

FALL = frozenset({"cos", "top1"})
"""Readouts that are 1 without a perturbation and fall with it: no statistic of `shapes` is defined for them."""

EITHER_WAY = frozenset({"logit-diff", "prob", "entropy"})
"""Readouts that may rise or fall from where they begin."""

CurveStatistic = Callable[..., Shape]
"""Computes a statistic of curves [*batch, step], given `stop`."""


def shape_table(
    curves: xr.Dataset,
    readout: str,
    *,
    threshold: float | None = None,
    fraction: float | None = None,
    statistics: Sequence[str] = STEP_STATISTICS,
    stop: xr.DataArray | None = None,
    min_slope: float = 0.02,
    tolerance: float = 0.2,
    fit: int = 10,
) -> pd.DataFrame:
    """Compute the statistics of every curve, one row per direction, sequence (and position, if kept separate).

    Args:
        curves: the curves of a sweep.
        readout: one of its readouts that grows from zero, such as `kl`.
        threshold: of `plateau` and `crossing`, in units of the readout; without it there are no such columns.
        fraction: of `relative_plateau` and `relative_crossing`: a threshold relative to the end of each curve.
        statistics: which of those that need no threshold.
        stop: how many steps of each curve count (integers, by any of the dimensions of a row); without it, all.
        min_slope: of `max_slope`, units of the readout per step.
        tolerance: of `nonlinearity`, relative.
        fit: of `nonlinearity`, steps.

    Returns:
        For every statistic NAME, the columns `NAME_step` (except for crossings), `NAME_at`, the same in units of the
        path, and `NAME_censored`. See `shape_summary` and `shape_column`.

    Raises:
        TiltmeterError: no curves, no such readout, one that does not grow from zero, a path of one point, unequal steps
            where a statistic needs equal ones, or a `stop` of other curves.
    """
    block = _block(checked(curves), readout)
    steps, dims = block.step.values, block.dims[:-1]
    computed = _step_statistics(statistics, min_slope, tolerance, fit) | _threshold_statistics(
        steps, threshold, fraction
    )
    if statistics:
        _check_spacing(steps, statistics)
    stops = [None] * len(block) if stop is None else _stops(stop, block.isel(step=0, drop=True))
    parts = [_columns(computed, steps, values, ends) for values, ends in zip(block.values, stops, strict=True)]
    rows = pd.MultiIndex.from_product([block[name].values for name in dims], names=dims).to_frame(index=False)
    return rows.assign(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def shape_column(table: pd.DataFrame, column: str) -> Shape:
    """One column of a `shape_table`, with its censoring, such as `max_slope_step` or `crossing_at`."""
    name = column.removesuffix("_step").removesuffix("_at")
    return Shape(table[column].to_numpy(np.float64), table[f"{name}_censored"].to_numpy(bool))


def shape_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise each statistic of a `shape_table` per direction, one row each.

    Returns:
        Columns `direction`, `statistic` (the column described), `mean` and `std` (of the population, as published) of
        the curves that are not censored, `median` of these and the censored ones, which count as later than all (NaN
        where it would fall among them), and the numbers of curves: `n` not censored, `censored`, and `missing`, not
        measured. Every curve counts the same; curves of one sequence are not independent.
    """
    names = [name.removesuffix("_censored") for name in table.columns if name.endswith("_censored")]
    columns = [column for name in names for column in (f"{name}_step", f"{name}_at") if column in table]
    return pd.DataFrame(
        {"direction": direction, "statistic": column} | _description(shape_column(part, column))
        for direction, part in table.groupby("direction", sort=False)
        for column in columns
    )


def _description(shape: Shape) -> dict[str, float | int]:
    times = censored_last(shape)
    values = times[np.isfinite(times)]
    median = np.median(times) if times.size else np.inf
    return {
        "mean": values.mean() if values.size else np.nan,
        "std": values.std() if values.size else np.nan,
        "median": median if np.isfinite(median) else np.nan,
        "n": values.size,
        "censored": int(shape.censored.sum()),
        "missing": shape.value.size - times.size,
    }


def _block(curves: xr.Dataset, readout: str) -> xr.DataArray:
    """The curves of a readout, sorted by step; refused if the statistics are undefined for them."""
    if readout not in curves.data_vars or "step" not in curves[readout].dims:
        known = [str(name) for name, values in curves.data_vars.items() if "step" in values.dims]
        raise TiltmeterError(f"these curves have no readout {readout}; choose one of {', '.join(known)}.")
    if kind_of(readout) in FALL:
        raise TiltmeterError(f"{readout} falls along a path; assign 1 − {readout} under another name and measure that.")
    if kind_of(readout) in EITHER_WAY:
        raise TiltmeterError(
            f"{readout} may rise or fall along a path, and does not begin at zero; assign its change from the first "
            "step under another name and measure that where it grows."
        )
    if curves.step.size < 2:
        raise TiltmeterError("these curves are single points, which have no shape; sweep along a path of more steps.")
    dims = [name for name in ("direction", "sequence", "position") if name in curves[readout].dims]
    return curves[readout].sortby("step").transpose(*dims, "step").astype(np.float64)


def _check_spacing(steps: Float[np.ndarray, " step"], statistics: Sequence[str]) -> None:
    gaps = np.diff(steps)
    if not np.allclose(gaps, gaps.mean(), rtol=1e-6, atol=0):
        raise TiltmeterError(
            f"the steps {', '.join(f'{step:g}' for step in steps[:4])}, … are not equally far apart, as "
            f"{', '.join(statistics)} need them; select steps that are, or give statistics=() and a threshold."
        )


def _step_statistics(
    statistics: Sequence[str], min_slope: float, tolerance: float, fit: int
) -> dict[str, CurveStatistic]:
    found: dict[str, CurveStatistic] = {
        "max_slope": partial(max_slope_step, min_slope=min_slope),
        "auc": auc_step,
        "nonlinearity": partial(nonlinearity_step, tolerance=tolerance, fit=fit),
    }
    unknown = [name for name in statistics if name not in found]
    if unknown:
        raise TiltmeterError(
            f"there is no statistic {unknown[0]}; choose from {', '.join(found)}, and give a threshold or a "
            "fraction for plateaus and crossings."
        )
    return {name: found[name] for name in statistics}


def _threshold_statistics(
    steps: Float[np.ndarray, " step"], threshold: float | None, fraction: float | None
) -> dict[str, CurveStatistic]:
    found: dict[str, CurveStatistic] = {}
    if threshold is not None:
        found["plateau"] = partial(plateau_step, threshold=threshold)
        found["crossing"] = partial(crossing, steps=steps, threshold=threshold)
    if fraction is not None:
        found["relative_plateau"] = lambda values, stop: plateau_step(relative(values, stop), fraction, stop)
        found["relative_crossing"] = lambda values, stop: crossing(relative(values, stop), steps, fraction, stop)
    return found


def _stops(stop: xr.DataArray, rows: xr.DataArray) -> Int[np.ndarray, "..."]:
    try:
        stop = xr.align(stop, rows, join="exact")[0].broadcast_like(rows).transpose(*rows.dims)
    except ValueError as error:
        raise TiltmeterError(f"stop is not of these curves ({error}); give it their own labels.") from error
    if stop.dtype.kind not in "iu":
        raise TiltmeterError(f"stop is of type {stop.dtype}; give whole numbers of steps, as floor(distance / step).")
    return stop.values


def _columns(
    statistics: Mapping[str, CurveStatistic],
    steps: Float[np.ndarray, " step"],
    values: Float[np.ndarray, "*row step"],
    stop: Int[np.ndarray, "*row"] | None,
) -> dict[str, Float[np.ndarray, " curve"] | Bool[np.ndarray, " curve"]]:
    columns = {}
    for name, statistic in statistics.items():
        shape = statistic(values, stop=stop)
        if name.endswith("crossing"):
            columns[f"{name}_at"] = shape.value.ravel()
        else:
            columns[f"{name}_step"] = shape.value.ravel()
            columns[f"{name}_at"] = _at(steps, shape.value).ravel()
        columns[f"{name}_censored"] = shape.censored.ravel()
    return columns


def _at(steps: Float[np.ndarray, " step"], indices: Float[np.ndarray, "*row"]) -> Float[np.ndarray, "*row"]:
    coordinates = steps[np.nan_to_num(indices).astype(int)]
    return np.where(np.isnan(indices), np.nan, coordinates)
