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
    """Compare each SAE's error with the cov-random mixture at a fifth and at half of the mean pair distance."""
    if curves.sizes["sequence"] < FEWEST:
        return f"{curves.sizes['sequence']} sequences are too few to compare directions; measure at least {FEWEST}."
    lengths = [float(curves.attrs["pair_distance"]) * part for part in (0.2, 0.5)]
    found = [_at_length(curves.kl.sel(step=length, method="nearest"), _kinds(curves)) for length in lengths]
    return " ".join(
        [*found, "Paired by sequence; t intervals at the level of Bonferroni, so that all hold together with 95 %."]
    )


def _at_length(kl: xr.DataArray, kinds: dict[str, list[str]]) -> str:
    comparisons = 2 * sum(map(len, kinds.values()))
    found = "; ".join(f"{kind} {_of_kind(kl, saes, comparisons)}" for kind, saes in kinds.items())
    base = ", ".join(f"{name} {float(kl.sel(direction=name).mean()):.3g}" for name in BASELINES)
    return (
        f"At length {float(kl.step):.1f} (mean KL in nats: {base}), errors beside the cov-random mixture, sparse "
        f"first: {found}."
    )


def _of_kind(kl: xr.DataArray, saes: list[str], comparisons: int) -> str:
    """How many of a kind's errors lie above, and the mean KL of each, the sparsest first."""
    verbs = [_verb(*_difference(kl, f"sae-error:{sae}", "cov-random-mixture", comparisons)) for sae in saes]
    counts = ", ".join(f"{verbs.count(verb)} {verb.removesuffix(' from')}" for verb in dict.fromkeys(verbs))
    means = ", ".join(f"{float(kl.sel(direction=f'sae-error:{sae}').mean()):.3g}" for sae in saes)
    return f"{counts} ({means})"


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
    low, high = _difference(kl, one, other, comparisons)
    values = f"{float(first.mean()):.3g} and {float(second.mean()):.3g}"
    return f"{one} {_verb(low, high)} {other} ({values}; {low:+.3g} to {high:+.3g})"


def _verb(low: float, high: float) -> str:
    return "above" if low > 0 else "below" if high < 0 else "not told apart from"


def _difference(kl: xr.DataArray, one: str, other: str, comparisons: int) -> tuple[float, float]:
    difference = kl.sel(direction=one) - kl.sel(direction=other)
    return paired_interval(difference.to_numpy(), 1 - 0.05 / comparisons)
