"""Figures of results in a notebook: matplotlib or plotly figures of the charts that reports have.

`tm.plot.curves(data)` takes what `run_sweep` returns, or a run directory. Figures are ordinary ones: change them, or
save them with `figure.savefig("mine.pdf")`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from tiltmeter.analysis import curves as stored
from tiltmeter.analysis.standing import MINUS
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts import curves as curve_charts
from tiltmeter.reports.charts import shapes as shape_charts
from tiltmeter.reports.charts import sites as site_charts
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.reports.charts.plotly import to_plotly
from tiltmeter.reports.compare import fans
from tiltmeter.runs.extras import require
from tiltmeter.runs.user_paths import user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(
    results: Any,
    readouts: str | tuple[str, ...] | None = None,
    directions: tuple[str, ...] | None = None,
    *,
    title: str = "",
    size: tuple[float, float] | None = None,
    library: str = "matplotlib",
) -> Figure | Any:
    """Plot the mean of each readout against the step, with 95 % intervals (bars where there is one step).

    Args:
        results: curves, or a run directory.
        readouts: which, each in its own panel; all but the length if not given.
        directions: which; all if not given.
        title: above the panels.
        size: width and height in inches (matplotlib); a long legend adds to the height.
        library: whose figure is returned.

    Raises:
        TiltmeterError: there are no such curves, readouts or directions.
    """
    data = _curves(results)
    wanted = (readouts,) if isinstance(readouts, str) else readouts or tuple(stored.readout_names(data)[:-1])
    _refuse_unknown("readout", wanted, stored.readout_names(data))
    names = [str(name) for name in data.direction.values] if directions is None else list(directions)
    _refuse_unknown("direction", names, [str(name) for name in data.direction.values])
    data = data.sel(direction=names)
    table, place = stored.summary(data), str(data.attrs.get("site", ""))
    if data.sizes["step"] == 1:
        chart = curve_charts.bars(data, table, list(wanted), place)
    else:
        chart = curve_charts.facets(data, table, list(wanted), {place: names})
    return _figure(chart, title, size, library)


def shapes(
    results: Any,
    readout: str = "kl",
    *,
    title: str = "",
    size: tuple[float, float] | None = None,
    library: str = "matplotlib",
) -> Figure | Any:
    """Plot where curves reach half their last value, and where they are steepest: histograms and cumulative fractions.

    Args:
        results: curves, or a run directory.
        readout: of which the curves are.
        title: above the panels.
        size: width and height in inches (matplotlib); a long legend adds to the height.
        library: whose figure is returned.

    Raises:
        TiltmeterError: there are no such curves, or they have fewer than two steps.
    """
    data = _curves(results)
    _refuse_unknown("readout", [readout], stored.readout_names(data))
    if data.sizes["step"] < 2:
        raise TiltmeterError("The curves have a single step, and so no shape; sweep over several lengths.")
    return _figure(shape_charts.distributions(data, readout), title, size, library)


def sites(
    results: Any,
    readout: str = "kl",
    step: float | None = None,
    *,
    title: str = "",
    size: tuple[float, float] | None = None,
    library: str = "matplotlib",
) -> Figure | Any:
    """Plot the mean of a readout at one step against the layer, with 95 % intervals: a panel for each kind of site.

    Args:
        results: the curves of a sweep at several sites.
        readout: which.
        step: the step nearest to this; the last if not given.
        title: above the panels.
        size: width and height in inches (matplotlib); a long legend adds to the height.
        library: whose figure is returned.

    Raises:
        TiltmeterError: the curves are of one site, or have no such readout.
    """
    data = _curves(results)
    if "site" not in data.dims:
        raise TiltmeterError("The curves are of one site; sweep over several, as site='resid_pre:*'.")
    _refuse_unknown("readout", [readout], stored.readout_names(data))
    return _figure(site_charts.by_layer(data, readout, step), title, size, library)


def compare(
    results: Any,
    vectors: tuple[str, ...] | None = None,
    *,
    title: str = "",
    size: tuple[float, float] | None = None,
    library: str = "matplotlib",
) -> Figure | Any:
    """Plot vectors and their opposites among random vectors of each baseline.

    Args:
        results: what `tm.compare` returns, its curves, or its run directory.
        vectors: labels; all if not given.
        title: above the panels.
        size: width and height in inches (matplotlib); a long legend adds to the height.
        library: whose figure is returned.

    Raises:
        TiltmeterError: these are not the curves of a comparison, or have no such vector.
    """
    data = _curves(getattr(results, "curves", results))
    names = [str(name) for name in data.direction.values]
    known = [name for name in names if MINUS + name in names and "#" not in name]
    stems = dict.fromkeys(name.rpartition("#")[0].partition(":")[0] for name in names if "#" in name)
    if not known or not stems:
        raise TiltmeterError("These are not the curves of a comparison; give what tm.compare returned.")
    _refuse_unknown("vector", vectors or (), known)
    baselines = [name for name in stems if not name.startswith(MINUS)]
    return _figure(fans(data, vectors or known, baselines), title, size, library)


def _curves(results: Any) -> xr.Dataset:
    if isinstance(results, xr.Dataset):
        return results
    if isinstance(results, (str, Path)):
        return stored.load(user_path(results) / "curves.nc")
    kind = type(results).__name__
    raise TiltmeterError(f"This is of type {kind}; give curves, as run_sweep returns them, or a run directory.")


def _refuse_unknown(what: str, names: Any, known: list[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise TiltmeterError(f"There is no {what} {unknown[0]!r}; the curves have {shown}.")


def _figure(chart: Chart, title: str, size: tuple[float, float] | None, library: str) -> Figure | Any:
    chart = replace(chart, title=title or chart.title)
    if library == "matplotlib":
        require("matplotlib", "report", "A figure")
        from tiltmeter.reports.charts.mpl import draw

        return draw(chart, size)
    if library == "plotly":
        go = require("plotly.graph_objects", "plotly", "A plotly figure")
        return go.Figure(to_plotly(chart))
    raise TiltmeterError(f"{library!r} is not a library of figures; choose matplotlib or plotly.")
