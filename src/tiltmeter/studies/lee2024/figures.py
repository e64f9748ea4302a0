"""How the figures of Lee & Heimersheim 2024 are drawn, and what a run found."""

from __future__ import annotations

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from tiltmeter.curves import readout_names
from tiltmeter.figures import facets
from tiltmeter.intervals import bootstrap_mean

ISOTROPIC = ("isotropic", "isotropic-difference")
COLUMNS = {
    "cov-random": ("cov-random-difference", "cov-random-mixture", *ISOTROPIC),
    "real": ("real-difference", "real-mixture", *ISOTROPIC),
}
PAIRS = (
    ("real-difference", "real-mixture"),
    ("cov-random-difference", "cov-random-mixture"),
    ("real-difference", "cov-random-difference"),
    ("real-mixture", "cov-random-mixture"),
    ("cov-random-mixture", "isotropic"),
)
"""The comparisons that the paper draws from this figure (larger KL first, if it holds here)."""


def draw_figure_1(curves: xr.Dataset, table: pd.DataFrame) -> Figure:
    """Columns: what the directions are made of. Rows: KL, and L2 after the last block (not the realised length)."""
    return facets(curves, table, readout_names(curves)[:-1], COLUMNS)


def describe_figure_1(curves: xr.Dataset) -> str:
    """Compare the directions of the paper's pairs, sequence by sequence, near half the mean pair distance."""
    half = float(curves.attrs["pair_distance"]) / 2
    kl = curves.kl.sel(step=half, method="nearest")
    found = "; ".join(_compare(kl, *pair) for pair in PAIRS)
    return (
        f"At length {float(kl.step):.1f}, about half the mean distance of two activations ({2 * half:.1f}), mean KL in "
        f"nats, with the 95 % interval of the paired difference: {found}."
    )


def _compare(kl: xr.DataArray, one: str, other: str) -> str:
    first, second = kl.sel(direction=one), kl.sel(direction=other)
    gap = bootstrap_mean((first - second).to_numpy()[None])
    low, high = float(gap.low[0]), float(gap.high[0])
    verb = "above" if low > 0 else "below" if high < 0 else "not told apart from"
    values = f"{float(first.mean()):.3g} and {float(second.mean()):.3g}"
    return f"{one} {verb} {other} ({values}; {low:+.2g} to {high:+.2g})"
