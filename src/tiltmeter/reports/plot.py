"""Figures of results in a notebook: matplotlib or plotly figures of the charts that reports have.

`tm.plot.curves(data)` takes what `run_sweep` returns, or a run directory. Figures are ordinary ones: change them, or
save them with `figure.savefig("mine.pdf")`.
"""

from __future__ import annotations

import math
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
    directions: str | tuple[str, ...] | None = None,
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
    wanted = _names(readouts, [name for name in stored.readout_names(data) if name != "length"])
    _refuse_unknown("readout", wanted, stored.readout_names(data))
    names = _names(directions, known := [str(name) for name in data.direction.values])
    _refuse_unknown("direction", names, known)
    data = data.sel(direction=names)
    table, place = stored.summary(data), str(data.attrs.get("site", ""))
    if data.sizes["step"] == 1:
        chart = curve_charts.bars(data, table, wanted, place)
    else:
        chart = curve_charts.facets(data, table, wanted, {place: names})
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
        TiltmeterError: there are no such curves, or they have fewer than two steps or are of several sites.
    """
    data = _curves(results)
    if "site" in data.dims:
        raise TiltmeterError("The curves are of several sites; give those of one: curves.sel(site=...).")
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
    vectors: str | tuple[str, ...] | None = None,
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
    wanted = _names(vectors, known)
    _refuse_unknown("vector", wanted, known)
    baselines = [name for name in stems if not name.startswith(MINUS)]
    return _figure(fans(data, wanted, baselines), title, size, library)


def _curves(results: Any) -> xr.Dataset:
    return stored.checked(stored.load(user_path(results)) if isinstance(results, (str, Path)) else results)


def _names(given: str | tuple[str, ...] | None, default: list[str]) -> list[str]:
    """Names that were given, or one, or by default these; always some."""
    return [given] if isinstance(given, str) else list(given or default)


def _refuse_unknown(what: str, names: Any, known: list[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise TiltmeterError(f"There is no {what} {unknown[0]!r}; the curves have {shown}.")


def _figure(chart: Chart, title: str, size: tuple[float, float] | None, library: str) -> Figure | Any:
    chart = replace(chart, title=title or chart.title)
    if library == "matplotlib":
        _check_size(size)
        require("matplotlib", "report", "A figure")
        from tiltmeter.reports.charts.mpl import draw

        return draw(chart, size)
    if library == "plotly":
        go = require("plotly.graph_objects", "plotly", "A plotly figure")
        return go.Figure(to_plotly(chart))
    raise TiltmeterError(f"{library!r} is not a library of figures; choose matplotlib or plotly.")


def _check_size(size: Any) -> None:
    if size is None:
        return
    try:
        fits = len(size) == 2 and all(0 < side < math.inf for side in size)
    except TypeError:
        fits = False
    if not fits:
        raise TiltmeterError(f"size was {size!r}; give width and height in inches, as (6, 4).")
