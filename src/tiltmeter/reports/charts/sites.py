"""Charts of a sweep at several sites: a readout against the layer."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import xarray as xr

from tiltmeter.analysis.curves import summary
from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.styles import styles

_SITE = re.compile(r"blocks\.(\d+)\.(.+)")


def by_layer(data: xr.Dataset, readout: str, step: float | None = None) -> Chart:
    """Plot the mean of a readout at one step against the layer: a panel per kind of site, a line per direction.

    Args:
        data: curves with a dimension `site`.
        readout: name of the readout.
        step: the step nearest to this; the last if None.
    """
    at = data.sel(step=data.step.values.max() if step is None else step, method="nearest")
    table = summary(at.expand_dims("step", axis=2))
    table = table[table.readout == readout]
    places = [_SITE.fullmatch(str(site)) for site in table.site]
    table = table.assign(
        layer=[int(place[1]) if place else 0 for place in places],
        kind=[place[2] if place else site for place, site in zip(places, table.site, strict=True)],
    )
    where = f"{axis_label(data[readout])} at {axis_label(data.step)} {float(at.step):g}"
    panels = [_panel(rows, str(kind), where) for kind, rows in table.groupby("kind", sort=False)]
    return Chart((tuple(panels),), share=("y",))


def _panel(table: pd.DataFrame, kind: str, label: str) -> Panel:
    looks, lines = styles(list(dict.fromkeys(table.direction))), []
    for name, rows in table.groupby("direction", sort=False):
        rows = rows.sort_values("layer")
        x, y, low, high = (rows[column].to_numpy(np.float64) for column in ("layer", "mean", "low", "high"))
        lines.append(Line(str(name), x, y, looks[str(name)], low, high))
    return Panel(kind, Axis("layer"), Axis(label), tuple(lines))
