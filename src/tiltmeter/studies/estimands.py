"""Building blocks of claims: reading curves, and estimands (ratios, differences, fractions) over sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.analysis.correlations import matrix, sums_of
from tiltmeter.analysis.estimates import ABOVE_ONE, ABOVE_ZERO, Estimand, Region, Rows, Scale
from tiltmeter.analysis.shapes import ks_distance
from tiltmeter.studies.results import NotMeasured, Results

PerSequence = Float[np.ndarray, " sequence"]
PerToken = Float[np.ndarray, "sequence position"]
Estimands = Callable[[Results], list[Estimand]]
"""Computes the estimands of a claim from the results of a study."""

SIMILAR = Region(0.8, 1.25)
"""The margin for "nearly the same" and "hardly differ": a ratio from 0.8 to 1.25. The papers state no margin."""

STEP_TOLERANCE = 1e-9
"""Relative: lengths are products of a study's lengths and the pair distance."""


def read(curves: xr.Dataset, readout: str, direction: str, step: float | None = None) -> Float[np.ndarray, "..."]:
    """A readout along a direction at a step, per sequence (and position, where positions are kept).

    Without `step`, [sequence, step] (or [sequence, position, step]).

    Raises:
        NotMeasured: the direction was not measured, or not at this step.
    """
    if direction not in curves.direction.values:
        raise NotMeasured(f"The direction {direction} was not measured.")
    one = curves[readout].sel(direction=direction)
    if step is not None:
        return one.isel(step=step_index(curves, step)).to_numpy()
    return one.transpose("sequence", ..., "step").to_numpy()


def step_index(curves: xr.Dataset, step: float) -> int:
    """The index of a step (a length, an angle) among the measured steps.

    Raises:
        NotMeasured: this step was not measured.
    """
    steps = curves.step.to_numpy()
    index = int(np.argmin(np.abs(steps - step)))
    if not np.isclose(steps[index], step, rtol=STEP_TOLERANCE, atol=1e-12):
        raise NotMeasured(f"Step {step:g} was not measured; the nearest one is {steps[index]:g}.")
    return index


def late_l2(curves: xr.Dataset) -> str:
    """The name of the readout of L2 at a later site.

    Raises:
        NotMeasured: no readout is an L2 distance.
    """
    for name in curves.data_vars:
        if str(name).startswith("l2@"):
            return str(name)
    raise NotMeasured("L2 at a later site was not read.")


def readout_name(curves: xr.Dataset, readout: str) -> str:
    """The name of a readout in a dataset; `l2` is short for the L2 distance at the later site that was read.

    Raises:
        NotMeasured: `l2` at a later site was not read.
    """
    return late_l2(curves) if readout == "l2" else readout


def pair_distance(curves: xr.Dataset) -> float:
    """Mean L2 distance of two real activations at the site."""
    return float(curves.attrs["pair_distance"])


def ratio(label: str, one: PerSequence, other: PerSequence, region: Region = ABOVE_ONE) -> Estimand:
    """Mean of one ÷ mean of the other, over the sequences that have both."""
    return Estimand(label, _together(one, other), lambda r: _mean(r[:, 0]) / _mean(r[:, 1]), region, "×", "ratio")


def difference(
    label: str, one: PerSequence, other: PerSequence, region: Region = ABOVE_ZERO, unit: str = ""
) -> Estimand:
    """Mean of one - mean of the other, over the sequences that have both."""
    return Estimand(label, _together(one, other), lambda r: _mean(r[:, 0]) - _mean(r[:, 1]), region, unit)


def mean(label: str, values: Float[np.ndarray, "sequence ..."], region: Region, unit: str = "") -> Estimand:
    """Mean over sequences (and positions)."""
    return Estimand(label, values, _mean, region, unit)


def fraction(label: str, truths: Float[np.ndarray, "sequence ..."], region: Region) -> Estimand:
    """The fraction of sequences (or tokens) for which something is true: 1 is true, 0 false, NaN unknown."""
    return Estimand(label, truths, _mean, region, scale="fraction")


def correlation(label: str, one: PerToken, other: PerToken, region: Region) -> Estimand:
    """Pearson's correlation over the tokens of all sequences."""
    return Estimand(label, sums_of([one, other]), lambda sums: float(matrix(sums)[0, 1]), region, scale="correlation")


def ks_gap(label: str, one: PerSequence, near: PerSequence, far: PerSequence) -> Estimand:
    """KS distance from `one` to `far` minus that to `near`: above zero, `near` has the more similar distribution."""

    def gap(rows: Rows) -> float:
        return ks_distance(rows[:, 0], rows[:, 2]) - ks_distance(rows[:, 0], rows[:, 1])

    return Estimand(label, _pairs(one, near, far), gap, ABOVE_ZERO)


def of_columns(
    label: str,
    columns: list[np.ndarray],
    statistic: Callable[[Rows], float],
    region: Region,
    scale: Scale = "difference",
) -> Estimand:
    """A statistic of several columns of numbers per sequence (or token), which are stacked on the last axis."""
    return Estimand(label, np.stack(columns, -1), statistic, region, scale=scale)


def double_ratio(rows: Rows) -> float:
    """Of four columns: mean a ÷ mean b, over mean c ÷ mean d."""
    a, b, c, d = np.nanmean(rows, axis=0)
    return float((a / b) / (c / d))


def combined(*parts: Estimands) -> Estimands:
    """The estimands of all parts, as those of one claim."""
    return lambda results: [estimand for part in parts for estimand in part(results)]


def about_all_layers(estimands: Estimands) -> Estimands:
    """The estimands of a claim about all layers: not tested where only one of several layers was measured.

    Layers without an SAE were not measured and do not count among "all".
    """

    def checked(results: Results) -> list[Estimand]:
        layers = list(results.by_layer("layers"))
        if len(layers) == 1 and any(name.startswith("layers-") for name in results.missing):
            raise NotMeasured(f"The claim is about all layers; only layer {layers[0]} was measured.")
        return estimands(results)

    return checked


def _together(one: PerSequence, other: PerSequence) -> Rows:
    """Pairs. Where one of the two is NaN both are set to NaN, so that the means are over the same sequences."""
    pairs = _pairs(one, other)
    return np.where(np.isnan(pairs).any(-1, keepdims=True), np.nan, pairs)


def _pairs(*columns: PerSequence) -> Rows:
    return np.stack(columns, -1)


def _mean(rows: Rows) -> float:
    total = rows.sum()  # several times faster than nanmean; the bootstrap calls this a thousand times per number
    return float(np.nanmean(rows) if np.isnan(total) else total / rows.size)
