"""What the smallest steps of a curve predict of the rest: the curve without a plateau, and without a blow-up.

For small δ, KL(clean ‖ perturbed) = ½ δ² uᵀJᵀGJu + O(δ³), with J the Jacobian from the site to the logits and
G = diag(p) - ppᵀ the Fisher metric of the softmax (Kullback & Leibler 1951). So KL ÷ δ² at a small δ is ½ uᵀJᵀGJu,
and goes on as a parabola; it needs no derivative, because the difference arithmetic keeps all digits of a KL of 10⁻¹².
A distance (`l2`) goes on as a straight line. How a curve departs from its continuation does not depend on the scale of
the readout or of the activations: on a plateau the continuation passes a threshold far later than the curve, which is
flat at first and then breaks off; of a curve that saturates it passes it earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tiltmeter.analysis.shapes import Shape

ORDERS: Mapping[str, int] = {"kl": 2, "js": 2, "l2": 1}
"""The power of a small distance that readouts grow with, by kind."""

AGREEMENT = 0.05
"""How far the rates at the two smallest steps may be from each other, as a fraction of the larger one."""


class Rate(NamedTuple):
    """A readout ÷ distance ^ order in the limit of small distances."""

    value: Float[np.ndarray, "*batch"]
    """In units of the readout per L2 ^ order; NaN where the two smallest steps disagree: these are not small enough."""
    order: int

    def at(self, distance: Float[np.ndarray, "*batch step"]) -> Float[np.ndarray, "*batch step"]:
        """The continuation at distances from the start, L2."""
        return self.value[..., None] * distance**self.order

    def reaches(self, threshold: float) -> Float[np.ndarray, "*batch"]:
        """The distance at which the continuation passes a threshold, (threshold ÷ rate) ^ (1 ÷ order), L2.

        For KL, that is √(2τ ÷ uᵀJᵀGJu). Infinite where nothing grows.
        """
        with np.errstate(divide="ignore"):
            return np.asarray((threshold / self.value) ** (1 / self.order))


def rate(values: Float[np.ndarray, "*batch step"], distance: Float[np.ndarray, "*batch step"], order: int) -> Rate:
    """The rate at the smallest step, where the next one agrees.

    Args:
        values: a readout that grows from zero; steps in ascending order.
        distance: of each step from the start, L2 (`length` in curves).
        order: 2 for `kl` and `js`, 1 for `l2` (`ORDERS`).
    """
    small = _two_smallest(distance)
    along, grown = (np.take_along_axis(of, small, axis=-1) for of in (distance, values))
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = grown / along**order
    low, high = rates.min(axis=-1), rates.max(axis=-1)
    known = np.isfinite(rates).all(axis=-1) & (low >= 0) & (high - low <= AGREEMENT * high)
    return Rate(np.where(known, rates[..., 0], np.nan), order)


def later_than_measured(
    predicted: Rate, threshold: float, crossed: Shape, steps: Float[np.ndarray, " step"], distance: np.ndarray
) -> Float[np.ndarray, "*batch"]:
    """The distance at which the continuation passes a threshold ÷ that at which the curve does.

    1 without a plateau and without saturation, above 1 on a plateau. NaN where the curve never passes, or the rate is
    not known.

    Args:
        predicted: of the curves [*batch].
        threshold: in units of the readout.
        crossed: where curves pass it, in units of `steps`.
        steps: of the path, ascending.
        distance: of each step from the start, L2 [*batch, step].
    """
    flat = distance.reshape(-1, distance.shape[-1])
    at = [np.interp(step, steps, along) for step, along in zip(np.ravel(crossed.value), flat, strict=True)]
    measured = np.reshape(at, crossed.value.shape)
    return np.where(crossed.censored, np.nan, predicted.reaches(threshold) / measured)


def _two_smallest(distance: Float[np.ndarray, "*batch step"]) -> np.ndarray:
    """The indices of the two smallest steps that lead anywhere."""
    away: Bool[np.ndarray, "*batch step"] = distance > 0
    return np.argsort(np.where(away, distance, np.inf), axis=-1, kind="stable")[..., :2]
