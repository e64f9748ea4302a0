"""How the figures of Lee & Heimersheim 2024 are drawn, and what a run found."""

from __future__ import annotations

import json

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from tiltmeter.curves import readout_names
from tiltmeter.figures import facets
from tiltmeter.intervals import paired_interval
from tiltmeter.studies.lee2024.sweeps import BASELINES

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
"""Below so many sequences no comparison is made."""


def draw_figure_1(curves: xr.Dataset, table: pd.DataFrame) -> Figure:
    """Columns: the paper's panels. Rows: KL, and L2 after the last block (not the realised length)."""
    return facets(curves, table, readout_names(curves)[:-1], COLUMNS)


def draw_figure_3(curves: xr.Dataset, table: pd.DataFrame) -> Figure:
    """Columns: kinds of SAE, with the baselines. Rows: KL, and L2 after the last block."""
    groups = {kind: (*BASELINES, *(f"sae-error:{sae}" for sae in saes)) for kind, saes in _kinds(curves).items()}
    return facets(curves, table, readout_names(curves)[:-1], groups)


def describe_figure_3(curves: xr.Dataset) -> str:
    """Compare each SAE's error with the cov-random mixture, sequence by sequence, at a fifth and half of the distance.

    Paired t intervals at the level of Bonferroni: where the differences are about normal, all hold together with 95 %.
    """
    if curves.sizes["sequence"] < FEWEST:
        return f"{curves.sizes['sequence']} sequences are too few to compare directions; measure at least {FEWEST}."
    saes = [sae for one in _kinds(curves).values() for sae in one]
    lengths = [float(curves.attrs["pair_distance"]) * part for part in (0.2, 0.5)]
    return " ".join(_at_length(curves.kl.sel(step=length, method="nearest"), saes, 2 * len(saes)) for length in lengths)


def _at_length(kl: xr.DataArray, saes: list[str], comparisons: int) -> str:
    found = "; ".join(_compare(kl, f"sae-error:{sae}", "cov-random-mixture", comparisons) for sae in saes)
    base = ", ".join(f"{name} {float(kl.sel(direction=name).mean()):.3g}" for name in BASELINES)
    return (
        f"At length {float(kl.step):.1f}, mean KL in nats, with t intervals of the paired differences at the level of "
        f"Bonferroni (95 % together): {base}; {found}."
    )


def _kinds(curves: xr.Dataset) -> dict[str, list[str]]:
    """The SAEs of each kind, the sparsest first."""
    facts = json.loads(curves.attrs["saes"])
    kinds: dict[str, list[str]] = {}
    for sae in sorted(facts, key=lambda name: facts[name]["l0"]):
        kinds.setdefault(facts[sae].get("kind") or "SAE error", []).append(sae)
    return {kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: (kind != "local", kind))}


def describe_figure_1(curves: xr.Dataset) -> str:
    """Compare the directions of the paper's pairs, sequence by sequence, near half the mean pair distance.

    Paired t intervals at the level of Bonferroni: where the differences are about normal, all hold together with 95 %.
    """
    if curves.sizes["sequence"] < FEWEST:
        return f"{curves.sizes['sequence']} sequences are too few to compare directions; measure at least {FEWEST}."
    half = float(curves.attrs["pair_distance"]) / 2
    kl = curves.kl.sel(step=half, method="nearest")
    found = "; ".join(_compare(kl, *pair, len(PAIRS)) for pair in PAIRS)
    return (
        f"At length {float(kl.step):.1f}, about half the mean distance of two activations ({2 * half:.1f}), mean KL in "
        f"nats, with t intervals of the paired differences at the level of Bonferroni (95 % together): {found}."
    )


def _compare(kl: xr.DataArray, one: str, other: str, comparisons: int) -> str:
    first, second = kl.sel(direction=one), kl.sel(direction=other)
    low, high = paired_interval((first - second).to_numpy(), 1 - 0.05 / comparisons)
    verb = "above" if low > 0 else "below" if high < 0 else "not told apart from"
    values = f"{float(first.mean()):.3g} and {float(second.mean()):.3g}"
    return f"{one} {verb} {other} ({values}; {low:+.3g} to {high:+.3g})"
