"""Charts of curves: the mean over sequences with its interval, against the step, or as bars for a single step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Line, Panel
from tiltmeter.reports.charts.styles import Style, styles


def lines(curves: xr.Dataset, table: pd.DataFrame, readout: str, directions: Sequence[str]) -> tuple[Line, ...]:
    """Plot the mean of a readout against the step, with its 95 % interval, one line per direction.

    Args:
        curves: all curves of the run, whose directions determine the styles.
        table: their summary (`tiltmeter.analysis.curves.summary`).
        readout: name of the readout.
        directions: names of the directions, in legend order.

    Raises:
        TiltmeterError: the readout or a direction was not measured.
    """
    rows, style_of = _rows_of_readout(table, readout), _styles(curves)
    unknown = [name for name in directions if name not in style_of]
    if unknown:
        raise TiltmeterError(f"no direction {unknown[0]} was measured; available: {', '.join(style_of)}.")
    found = []
    for name in directions:
        curve = rows[rows.direction == name].sort_values("step")
        x, y, low, high = (curve[column].to_numpy(np.float64) for column in ("step", "mean", "low", "high"))
        found.append(Line(name, x, y, style_of[name], low, high))
    return tuple(found)


def facets(
    curves: xr.Dataset, table: pd.DataFrame, readouts: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> Chart:
    """Plot a grid of mean curves, one row per readout and one column per group.

    Args:
        curves: all curves of the run, which supply the axis labels and units.
        table: their summary.
        readouts: names of the readouts, one per row.
        groups: directions of each column, keyed by its title.

    Raises:
        TiltmeterError: there are no readouts or groups, or a readout or direction was not measured.
    """
    if not readouts or not groups:
        raise TiltmeterError("a figure needs at least one readout and one group of directions; name them.")
    step = Axis(axis_label(curves.step))
    return Chart(
        tuple(
            tuple(
                Panel(
                    "" if row else title,
                    step,
                    Axis(quantity(curves, table, readout)),
                    lines(curves, table, readout, names),
                )
                for title, names in groups.items()
            )
            for row, readout in enumerate(readouts)
        )
    )


def bars(curves: xr.Dataset, table: pd.DataFrame, readouts: Sequence[str], title: str) -> Chart:
    """Plot curves of a single step: one panel per readout, one bar per direction with its 95 % interval.

    Args:
        curves: all curves of the run, which supply the axis labels and units.
        table: their summary.
        readouts: names of the readouts, one per panel.
        title: title above all panels.

    Raises:
        TiltmeterError: there are no readouts, or one was not measured.
    """
    if not readouts:
        raise TiltmeterError("a figure needs at least one readout; name one.")
    panels = tuple(
        Panel("", Axis(""), Axis(quantity(curves, table, readout)), _bars(curves, table, readout))
        for readout in readouts
    )
    return Chart((panels,), share=("x",), title=title)


def axis_label(values: xr.DataArray) -> str:
    """Label a quantity with its units: "KL(clean ‖ perturbed), nats", "perturbation length (L2)"."""
    name, units = values.attrs.get("long_name", str(values.name)), values.attrs.get("units", "1")
    if units == "1":
        return name
    return f"{name} ({units})" if values.name == "step" else f"{name}, {units}"


def quantity(curves: xr.Dataset, table: pd.DataFrame, readout: str) -> str:
    """Return the axis label of a readout.

    Raises:
        TiltmeterError: the readout was not measured.
    """
    _rows_of_readout(table, readout)
    return axis_label(curves[readout])


def _rows_of_readout(table: pd.DataFrame, readout: str) -> pd.DataFrame:
    rows = table[table.readout == readout]
    if rows.empty:
        raise TiltmeterError(f"no readout {readout} was measured; available: {', '.join(table.readout.unique())}.")
    return rows


def _styles(curves: xr.Dataset) -> dict[str, Style]:
    return styles([str(name) for name in curves.direction.values])


def _bars(curves: xr.Dataset, table: pd.DataFrame, readout: str) -> tuple[Bars, ...]:
    rows, style_of = _rows_of_readout(table, readout), _styles(curves)
    found = []
    for name in rows.direction.unique():
        y, low, high = (rows.loc[rows.direction == name, column].to_numpy(float) for column in ("mean", "low", "high"))
        found.append(Bars(name, (name,) * len(y), y, style_of[name], low, high))
    return tuple(found)
