"""How the figures of Lee & Heimersheim 2024 are drawn, and what a run found."""

from __future__ import annotations

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from tiltmeter.curves import readout_names
from tiltmeter.figures import facets
from tiltmeter.intervals import bootstrap_mean

COLUMNS = {
    "1a: cov-random": ("cov-random-difference", "cov-random-mixture", "isotropic"),
    "1a: real": ("real-difference", "real-mixture", "isotropic"),
    "1b: difference": ("cov-random-difference", "real-difference", "isotropic-difference"),
    "1b: mixture": ("cov-random-mixture", "real-mixture", "isotropic"),
}
PAIRS = (
    ("real-difference", "real-mixture"),
    ("cov-random-difference", "cov-random-mixture"),
    ("real-difference", "cov-random-difference"),
    ("real-mixture", "cov-random-mixture"),
    ("cov-random-mixture", "isotropic"),
)
"""The comparisons that the paper draws from this figure (larger KL first, if it holds here)."""
FEWEST = 10
"""Below so many sequences a bootstrap interval is too narrow to conclude from."""


def draw_figure_1(curves: xr.Dataset, table: pd.DataFrame) -> Figure:
    """Columns: the paper's panels. Rows: KL, and L2 after the last block (not the realised length)."""
    return facets(curves, table, readout_names(curves)[:-1], COLUMNS)


def describe_figure_1(curves: xr.Dataset) -> str:
    """Compare the directions of the paper's pairs, sequence by sequence, near half the mean pair distance.

    The five intervals hold together with 95 % (Bonferroni).
    """
    if curves.sizes["sequence"] < FEWEST:
        return f"{curves.sizes['sequence']} sequences are too few to compare directions; measure at least {FEWEST}."
    half = float(curves.attrs["pair_distance"]) / 2
    kl = curves.kl.sel(step=half, method="nearest")
    found = "; ".join(_compare(kl, *pair) for pair in PAIRS)
    return (
        f"At length {float(kl.step):.1f}, about half the mean distance of two activations ({2 * half:.1f}), mean KL in "
        f"nats, with intervals of the paired differences that hold together with 95 %: {found}."
    )


def _compare(kl: xr.DataArray, one: str, other: str) -> str:
    first, second = kl.sel(direction=one), kl.sel(direction=other)
    gap = bootstrap_mean((first - second).to_numpy()[None], confidence=1 - 0.05 / len(PAIRS))
    low, high = float(gap.low[0]), float(gap.high[0])
    verb = "above" if low > 0 else "below" if high < 0 else "not told apart from"
    values = f"{float(first.mean()):.3g} and {float(second.mean()):.3g}"
    return f"{one} {verb} {other} ({values}; {low:+.3g} to {high:+.3g})"
