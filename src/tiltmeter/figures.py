"""Figures of curves: the mean over sequences with its interval, drawn the same way in every figure.

A direction keeps its colour, dash and marker everywhere. Families share a hue (black isotropic, blue cov-random,
vermilion real) of Okabe and Ito's palette, which colour-blind readers can tell apart; differences are dashed with open
markers, mixtures solid with full ones, so that a grey print tells them apart too. SAEs that differ in sparsity alone
(`...-l0-4`, `...-l0-12`) go from light to dark.
"""

import io
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tiltmeter.errors import TiltmeterError

_Dash = str | tuple[float, tuple[float, ...]]


class Style(NamedTuple):
    """How one direction is drawn, in matplotlib's words."""

    color: str
    linestyle: _Dash
    marker: str
    face: str


_DASHED: _Dash = (0.0, (4.0, 1.6))
_KNOWN = {
    "isotropic": Style("#000000", "solid", "s", "#000000"),
    "isotropic-difference": Style("#7A7A7A", _DASHED, "s", "white"),
    "cov-random-difference": Style("#56B4E9", _DASHED, "o", "white"),
    "cov-random-mixture": Style("#0072B2", "solid", "o", "#0072B2"),
    "real-difference": Style("#E69F00", _DASHED, "^", "white"),
    "real-mixture": Style("#D55E00", "solid", "^", "#D55E00"),
}
# Four colours, three dashes and five markers have no common divisor, so sixty other directions look different.
_OTHER_COLORS = ("#009E73", "#CC79A7", "#882255", "#999933")
_OTHER_DASHES: tuple[_Dash, ...] = ("solid", (0.0, (6.0, 1.5, 1.0, 1.5)), (0.0, (1.2, 1.2)))
_SPARSITY = re.compile(r"(?P<direction>[^:]+):(?P<kind>.+)-l0-(?P<l0>\d+(\.\d+)?)")
# A kind of direction has a hue and a dash, a kind of SAE a marker, a sparsity a shade.
_RAMPS: tuple[tuple[Colormap, _Dash], ...] = tuple(
    zip((mpl.colormaps[name] for name in ("RdPu", "YlGn", "YlOrBr", "Greys")), (*_OTHER_DASHES, _DASHED), strict=True)
)
_OTHER_MARKERS = ("D", "v", "P", "X", "*")

_LOOK: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#444444",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a file name is no formula
    "svg.fonttype": "none",
    "svg.hashsalt": "tiltmeter",
}


def styles(directions: Sequence[str]) -> dict[str, Style]:
    """Give each direction its style, in the order given.

    The known ones have their own, those of one kind of SAE at several sparsities a ramp, others the next of a cycle.
    """
    ramps = _ramps(directions)
    others = [name for name in directions if name not in _KNOWN and name not in ramps]
    cycle = zip(others, itertools.cycle(_OTHER_COLORS), itertools.cycle(_OTHER_DASHES), itertools.cycle(_OTHER_MARKERS))
    own = {name: Style(color, dash, marker, color) for name, color, dash, marker in cycle} | ramps
    return {name: _KNOWN.get(name) or own[name] for name in directions}


def _ramps(directions: Sequence[str]) -> dict[str, Style]:
    """Styles of the directions that differ only in the L0 of their SAE: from light to dark."""
    families: dict[tuple[str, str], list[str]] = {}
    found = [match for name in directions if (match := _SPARSITY.fullmatch(name))]
    for match in sorted(found, key=lambda match: float(match["l0"])):
        families.setdefault((match["direction"], match["kind"]), []).append(match[0])
    looks = dict(zip(dict.fromkeys(direction for direction, _ in families), itertools.cycle(_RAMPS)))
    markers = dict(zip(dict.fromkeys(kind for _, kind in families), itertools.cycle(_OTHER_MARKERS)))
    return {
        name: Style(color := to_hex(colormap(0.35 + 0.6 * rank / (len(names) - 1))), dash, markers[kind], color)
        for (direction, kind), names in families.items()
        for colormap, dash in [looks[direction]]
        if len(names) > 1
        for rank, name in enumerate(names)
    }


def mean_curves(axes: Axes, table: pd.DataFrame, readout: str, directions: Sequence[str]) -> list[Line2D]:
    """Draw the mean of a readout against the step, a line and an interval band per direction.

    Args:
        axes: where to draw.
        table: a summary (`tiltmeter.curves.summary`); styles follow the order of all its directions.
        readout: which readout.
        directions: which directions, in the order of the legend.

    Returns:
        The lines, labelled by direction, for a legend.

    Raises:
        TiltmeterError: the table has no such readout or direction.
    """
    rows = table[table.readout == readout]
    if rows.empty:
        raise TiltmeterError(f"no readout {readout} was measured; there are {', '.join(table.readout.unique())}.")
    style_of = styles(list(table.direction.unique()))
    unknown = [name for name in directions if name not in style_of]
    if unknown:
        raise TiltmeterError(f"no direction {unknown[0]} was measured; there are {', '.join(style_of)}.")
    lines = []
    for name in directions:
        curve = rows[(rows.direction == name) & rows["mean"].notna()].sort_values("step")
        style = style_of[name]
        axes.fill_between(curve.step, curve.low, curve.high, color=style.color, alpha=0.18, linewidth=0)
        lines += axes.plot(
            curve.step,
            curve["mean"],
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker,
            markerfacecolor=style.face,
            markevery=max(1, round(len(curve) / 16)),
            label=name,
        )
    return lines


def facets(
    curves: xr.Dataset, table: pd.DataFrame, readouts: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> Figure:
    """Draw a grid of mean curves: a row per readout, a column per group, with shared axes and one legend.

    Args:
        curves: for the labels and units of its axes.
        table: its summary.
        readouts: the rows.
        groups: the columns, title to directions.

    Raises:
        TiltmeterError: no readouts or groups, or a readout or direction that was not measured.
    """
    if not readouts or not groups:
        raise TiltmeterError("a figure needs at least one readout and one group of directions; name them.")
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(0.9 + 3.0 * len(groups), 0.7 + 2.3 * len(readouts)), layout="constrained")
        grid = figure.subplots(len(readouts), len(groups), sharex=True, sharey="row", squeeze=False)
        lines: dict[str, Line2D] = {}
        for row, readout in zip(grid, readouts, strict=True):
            for axes, directions in zip(row, groups.values(), strict=True):
                lines.update(zip(directions, mean_curves(axes, table, readout, directions), strict=True))
            row[0].set_ylabel(textwrap.fill(axis_label(curves[readout]), 30, break_long_words=False))
        for axes, title in zip(grid[0], groups, strict=True):
            axes.set_title(title)
        for axes in grid[-1]:
            axes.set_xlabel(axis_label(curves.step))
        _legend(figure, lines)
    return figure


def bars(curves: xr.Dataset, table: pd.DataFrame, readouts: Sequence[str], title: str) -> Figure:
    """Draw curves of one step: a panel per readout, a bar per direction with its interval.

    Args:
        curves: for the labels and units of its axes.
        table: its summary.
        readouts: the panels.
        title: above them all.
    """
    style_of = styles(list(table.direction.unique()))
    with mpl.rc_context(_LOOK):
        width, height = 2.4 + 3.2 * len(readouts), 0.9 + 0.24 * len(style_of)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title, fontsize=10)
        for axes, readout in zip(
            figure.subplots(1, len(readouts), sharey=True, squeeze=False)[0], readouts, strict=True
        ):
            rows = table[table.readout == readout].set_index("direction").loc[list(style_of)]
            reach = [(rows["mean"] - rows.low).clip(lower=0), (rows.high - rows["mean"]).clip(lower=0)]
            colors = [style.color for style in style_of.values()]
            axes.barh(
                list(style_of),
                rows["mean"],
                xerr=reach,
                color=colors,
                height=0.7,
                error_kw={"linewidth": 1.2, "ecolor": "#7A7A7A"},
            )
            axes.set_xlabel(textwrap.fill(axis_label(curves[readout]), 40, break_long_words=False))
            axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
    return figure


def axis_label(values: xr.DataArray) -> str:
    """Name a quantity with its units: "KL(clean ‖ perturbed), nats", "perturbation length (L2)"."""
    name, units = values.attrs.get("long_name", str(values.name)), values.attrs.get("units", "1")
    if units == "1":
        return name
    return f"{name} ({units})" if values.name == "step" else f"{name}, {units}"


def log_y(figure: Figure, floor: float = 1e-6) -> None:
    """Show the values of every panel on a logarithmic axis; what lies below the floor is left out.

    The floor's default is the smallest KL that readouts vouch for.
    """
    for axes in figure.axes:
        axes.set_yscale("log", nonpositive="mask")
        low, high = axes.get_ylim()
        low = max(low, floor)
        axes.set_ylim(low, max(high, 10 * low))
        few_decades = high < 100 * low
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def to_png(figure: Figure) -> bytes:
    """Draw the figure as PNG at 200 dots per inch; equal figures give equal bytes."""
    return _draw(figure, format="png", dpi=200, metadata={"Software": None})


def to_svg(figure: Figure) -> bytes:
    """Draw the figure as SVG, its text kept as text; equal figures give equal bytes."""
    return _draw(figure, format="svg", metadata={"Date": None, "Creator": None})


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.png and `name`.svg into the folder, which is made if absent.

    Raises:
        TiltmeterError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(to_png(figure))
        (folder / f"{name}.svg").write_bytes(to_svg(figure))
    except OSError as error:
        raise TiltmeterError(f"cannot write figures into {folder} ({error.strerror}); choose another place.") from error


def _draw(figure: Figure, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(_LOOK):
        figure.savefig(buffer, **settings)
    return buffer.getvalue()


def _legend(figure: Figure, lines: Mapping[str, Line2D]) -> None:
    # A letter is about 0.067 inch wide, a handle with the gaps about it 0.7 inch, a row 0.19 inch high.
    labels = [_shortened(name, int((figure.get_figwidth() - 0.9) / 0.077)) for name in lines]
    columns = int(figure.get_figwidth() / (0.067 * max(map(len, labels)) + 0.7))
    columns = max(1, min(len(lines), columns))
    figure.set_figheight(figure.get_figheight() + 0.19 * -(-len(lines) // columns))
    figure.legend(list(lines.values()), labels, loc="outside lower center", ncols=columns, handlelength=2.8)


def _shortened(name: str, most: int) -> str:
    """A name that the legend has room for; the end tells most names apart."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[most // 3 + 1 - most :]}"
