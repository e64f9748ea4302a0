"""The numbers that the figures and claims of Heimersheim & Mendel 2024 are about.

A crossing is the angle or length at which a prompt's curve passes a threshold; a curve that never does is censored, and
later than all others (infinity), so that only ranks and medians are taken of crossings.

The post's threshold is a KL of 0.5 nats, which a model of random weights, whose output hardly moves, never reaches. The
relative one is defined there, too: half of what the prompt's compared directions reach, on average, at 90 degrees
or at the length ‖x‖. The directions share it, so that a crossing still says which of them moves the output first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.analysis.estimates import Estimand, Region
from tiltmeter.analysis.resampling import Rows
from tiltmeter.analysis.shapes import Shape, crossing
from tiltmeter.analysis.small_steps import ORDERS, Rate, later_than_measured, rate
from tiltmeter.perturb.names import BLEND, DirectionName
from tiltmeter.studies.estimands import PerSequence, late_l2, pair_distance, read, readout_name, step_index
from tiltmeter.studies.results import NotMeasured

THRESHOLD = 0.5
"""KL, in nats: the post's measure of a plateau's size."""

RELATIVE = 0.5
"""Part of the output's movement far out that the relative threshold is."""

FAR_DEGREES, FAR_LENGTH = 90.0, 1.0
"""Where that movement is read: at right angles, and at the length ‖x‖."""

Weights = tuple[float, float, float]


def movement(curves: xr.Dataset, readout: str, direction: str) -> Float[np.ndarray, "sequence step"]:
    """A readout that grows from zero: `kl`, `l2` after the last block, or `cos`, 1 - the cosine there."""
    if readout == "cos":
        return 1 - read(curves, late_l2(curves).replace("l2@", "cos@"), direction)
    return read(curves, readout_name(curves, readout), direction)


def at_step(curves: xr.Dataset, readout: str, direction: str, step: float) -> PerSequence:
    """A movement at an angle, or a length in ‖x‖."""
    return movement(curves, readout, direction)[:, step_index(curves, step)]


def at_step_length(curves: xr.Dataset, direction: str, step: float) -> PerSequence:
    """The distance from the base at a step, L2."""
    return read(curves, "length", direction)[:, step_index(curves, step)]


def at_distance(curves: xr.Dataset, readout: str, direction: str, distance: float) -> PerSequence:
    """A movement at a distance, in pair distances: linear between steps, NaN beyond the prompt's last."""
    wanted = distance * pair_distance(curves)
    lengths, values = read(curves, "length", direction), movement(curves, readout, direction)
    pairs = zip(lengths, values, strict=True)
    return np.array([np.interp(wanted, along, value, right=np.nan) for along, value in pairs])


def small_step_rate(curves: xr.Dataset, direction: str, readout: str = "kl") -> Rate:
    """What each prompt's smallest steps predict: KL or L2 ÷ distance ^ order."""
    return rate(movement(curves, readout, direction), read(curves, "length", direction), ORDERS[readout])


def predicted_later(curves: xr.Dataset, direction: str) -> PerSequence:
    """Where the small steps predict that KL passes the threshold ÷ where it does, by prompt."""
    steps, length = curves.step.to_numpy(), read(curves, "length", direction)
    crossed = crossings(curves, direction)
    return later_than_measured(small_step_rate(curves, direction), THRESHOLD, crossed, steps, length)


def crossings(curves: xr.Dataset, direction: str) -> Shape:
    """Where each prompt's KL passes the post's threshold."""
    return crossing(movement(curves, "kl", direction), curves.step.values, THRESHOLD)


def relative_crossings(curves: xr.Dataset, directions: Sequence[str], readout: str = "kl") -> dict[str, Shape]:
    """Where each prompt's curve along each direction passes the relative threshold that they have in common."""
    far = step_index(curves, FAR_DEGREES if curves.step.attrs["units"] == "degrees" else FAR_LENGTH)
    values = {name: movement(curves, readout, name) for name in directions}
    threshold = RELATIVE * np.mean([one[:, far] for one in values.values()], axis=0)[:, None]
    return {
        name: crossing(
            np.divide(one, threshold, out=np.full(one.shape, np.nan), where=threshold > 0), curves.step.values, 1.0
        )
        for name, one in values.items()
    }


def median_ratio(label: str, one: PerSequence, other: PerSequence, region: Region) -> Estimand:
    """Median of one crossing ÷ median of the other; not defined where more than half of either are censored."""
    return Estimand(label, np.stack([one, other], -1), _median_ratio, region, "×", "ratio")


def is_first(one: PerSequence, other: PerSequence) -> PerSequence:
    """1 where a prompt's first crossing comes before its second, 0 where after, ½ where both come at once.

    NaN where neither comes: nothing is known of their order, as in a sign test.
    """
    before = (one < other) + 0.5 * (one == other)
    unknown = np.isnan(one) | np.isnan(other) | (np.isinf(one) & np.isinf(other))
    return np.where(unknown, np.nan, before)


def points(curves: xr.Dataset) -> dict[Weights, str]:
    """Directions of a triangle by the weights of its corners."""
    names = [DirectionName.parse(str(name)) for name in curves.direction.values]
    found = {_weights(name): str(name) for name in names if name.kind == BLEND}
    if not found:
        raise NotMeasured("No points of a triangle were measured.")
    return found


def triangle_crossings(curves: xr.Dataset, threshold: str) -> dict[Weights, PerSequence]:
    """Angles of crossings at each point of a triangle, by prompt. `threshold`: `absolute` or `relative`."""
    names = points(curves)
    if threshold == "relative":
        found = relative_crossings(curves, list(names.values()))
        return {weights: found[name].value_or_inf for weights, name in names.items()}
    return {weights: crossings(curves, name).value_or_inf for weights, name in names.items()}


def corner(number: int) -> Weights:
    """The weights of a corner: 0 is the top one, 1 the left one, 2 the right one."""
    top, left, right = (float(number == at) for at in range(3))
    return top, left, right


def neighbours(weights: Sequence[Weights], number: int) -> list[Weights]:
    """The two points of the grid next to a corner, on its two sides."""
    at = corner(number)
    others = [one for one in weights if one != at]
    nearest = max(one[number] for one in others)
    return [one for one in others if one[number] == nearest and 0.0 in one]


def _weights(name: DirectionName) -> Weights:
    (top, _), (left, _), (right, _) = name.terms
    return top, left, right


def _median_ratio(rows: Rows) -> float:
    return float(np.nanmedian(rows[:, 0]) / np.nanmedian(rows[:, 1]))
