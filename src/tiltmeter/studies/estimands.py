"""The quantities that claims are made of, from numbers per sequence."""

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
Quantities = Callable[[Results], list[Estimand]]
"""What a claim is about, of the results of a study."""


def read(curves: xr.Dataset, readout: str, direction: str, step: float | None = None) -> Float[np.ndarray, "..."]:
    """A readout along a direction, per sequence (and position, where positions are apart), at the step nearest to this.

    Without `step`, [sequence, step] (or [sequence, position, step]).

    Raises:
        NotMeasured: this direction was not measured.
    """
    if direction not in curves.direction.values:
        raise NotMeasured(f"The direction {direction} was not measured.")
    one = curves[readout].sel(direction=direction)
    if step is not None:
        return one.sel(step=step, method="nearest").to_numpy()
    return one.transpose("sequence", ..., "step").to_numpy()


def late_l2(curves: xr.Dataset) -> str:
    """The name of the readout of L2 at a later site.

    Raises:
        NotMeasured: there is none.
    """
    for name in curves.data_vars:
        if str(name).startswith("l2@"):
            return str(name)
    raise NotMeasured("L2 at a later site was not read.")


def pair_distance(curves: xr.Dataset) -> float:
    """Mean L2 distance of two real activations at the site."""
    return float(curves.attrs["pair_distance"])


def ratio(what: str, one: PerSequence, other: PerSequence, region: Region = ABOVE_ONE) -> Estimand:
    """Mean of one ÷ mean of the other, over the sequences that have both."""
    return Estimand(what, _together(one, other), lambda r: _mean(r[:, 0]) / _mean(r[:, 1]), region, "×", "ratio")


def difference(
    what: str, one: PerSequence, other: PerSequence, region: Region = ABOVE_ZERO, unit: str = ""
) -> Estimand:
    """Mean of one - mean of the other, over the sequences that have both."""
    return Estimand(what, _together(one, other), lambda r: _mean(r[:, 0]) - _mean(r[:, 1]), region, unit)


def mean(what: str, values: Float[np.ndarray, "sequence ..."], region: Region, unit: str = "") -> Estimand:
    """Mean over sequences (and positions)."""
    return Estimand(what, values, _mean, region, unit)


def share(what: str, truths: Float[np.ndarray, "sequence ..."], region: Region) -> Estimand:
    """The part of the tokens for which something is so: 1 where it is, 0 where not, NaN where it cannot be said."""
    return Estimand(what, truths, _mean, region, scale="share")


def correlation(what: str, one: PerToken, other: PerToken, region: Region) -> Estimand:
    """Pearson's correlation over the tokens of all sequences."""
    return Estimand(what, sums_of([one, other]), lambda sums: float(matrix(sums)[0, 1]), region)


def ks_gap(what: str, one: PerSequence, near: PerSequence, far: PerSequence) -> Estimand:
    """KS distance of the first from the third less that from the second: above zero, the second is more like it."""

    def gap(rows: Rows) -> float:
        return ks_distance(rows[:, 0], rows[:, 2]) - ks_distance(rows[:, 0], rows[:, 1])

    return Estimand(what, _pairs(one, near, far), gap, ABOVE_ZERO)


def of_columns(
    what: str,
    columns: list[np.ndarray],
    statistic: Callable[[Rows], float],
    region: Region,
    scale: Scale = "difference",
) -> Estimand:
    """Any statistic of several numbers per sequence (or token), side by side on the last axis."""
    return Estimand(what, np.stack(columns, -1), statistic, region, scale=scale)


def about_all_layers(estimands: Quantities) -> Quantities:
    """The same quantities, of a claim about all layers: not tested where one of several was measured.

    Layers that were not measured, since they have no SAE, are left out of "all".
    """

    def checked(results: Results) -> list[Estimand]:
        layers = list(results.by_layer("layers"))
        if len(layers) == 1 and any(name.startswith("layers-") for name in results.missing):
            raise NotMeasured(f"It is about all layers, and was measured at layer {layers[0]} alone.")
        return estimands(results)

    return checked


def _together(one: PerSequence, other: PerSequence) -> Rows:
    """Pairs; where one of two is missing, neither counts."""
    pairs = _pairs(one, other)
    return np.where(np.isnan(pairs).any(-1, keepdims=True), np.nan, pairs)


def _pairs(*columns: PerSequence) -> Rows:
    return np.stack(columns, -1)


def _mean(rows: Rows) -> float:
    total = rows.sum()  # several times as quick as nanmean, a thousand times for each number
    return float(np.nanmean(rows) if np.isnan(total) else total / rows.size)
