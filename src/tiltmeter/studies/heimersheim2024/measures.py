"""What each claim of Heimersheim & Mendel 2024 measures, and where the post has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from tiltmeter.evidence import ABOVE_ONE, Quantity, Region
from tiltmeter.quantities import PerSequence, difference, ratio, share
from tiltmeter.results import Results
from tiltmeter.studies.heimersheim2024.quantities import (
    FAR_DEGREES,
    Weights,
    at_distance,
    at_step,
    corner,
    crossings,
    first_more_often,
    median_gap,
    median_ratio,
    neighbours,
    relative_crossings,
    times,
    triangle_times,
)
from tiltmeter.studies.heimersheim2024.sweeps import RANDOM, REAL

Measures = Callable[[Results], list[Quantity]]
Threshold = Literal["absolute", "relative"]

SHORT, MEDIUM = 0.25, 0.5
"""Distances that stand for all below the mean distance of two real activations, in such distances."""

SMALL_ANGLE, PLATEAU_ANGLE = 20.0, 40.0
"""Angles that stand for those of the plateau, and the post's end of it."""

HALFWAY = 0.5
"""In ‖x‖: the middle of the straight path."""

FLAT = 0.1
"""Part of the movement at right angles up to which a curve counts as near zero."""

MUCH_LESS = Region(-math.inf, 0.5)
"""Less than half."""

APART = Region(0.7, math.inf)
"""The area under the ROC curve from which a classifier is called acceptable (Hosmer & Lemeshow 2000)."""

MORE_OFTEN = Region(0.5, math.inf)
"""More often than not."""

NO_ORDER, NO_GAP = Region(0.4, 0.6), Region(-5.0, 5.0)
"""How often one of two is first where neither is sooner; degrees in which their medians count as equal."""

SYMMETRIC = Region(0.8, 1.25)
"""Ratios in which medians at corners count as equal."""

_MOVED = {"kl": "KL", "l2": "L2 at the end", "cos": "1 - cosine at the end"}
_MODES = {"straight": "‖x‖", "sphere": "°"}
_CROSSED = {"absolute": "KL 0.5", "relative": "the relative threshold"}


def plateau(readout: str, distance: float, angle: float, base: str = "") -> Measures:
    """Random base ÷ real one: the same targets, at the same distance and at the same angle.

    `base` is empty for the prompt's own activation, `-other-base` for another prompt's in its place.
    """
    real = "transplanted real" if base else "real"

    def measures(results: Results) -> list[Quantity]:
        straight, sphere = (
            [results[f"{mode}-random-base"], results[f"{mode}{base}"]] for mode in ("straight", "sphere")
        )
        what = f"{_MOVED[readout]}: random ÷ {real} base"
        return [
            ratio(
                f"{what}, {distance:g} pair distances", *(at_distance(c, readout, RANDOM, distance) for c in straight)
            ),
            ratio(f"{what}, {angle:g}°", *(at_step(c, readout, RANDOM, angle) for c in sphere)),
        ]

    return measures


def random_base_rises(results: Results) -> list[Quantity]:
    """More of the movement at right angles at a small angle than a KL without a plateau has."""
    return [_rise(results, "-random-base", SMALL_ANGLE, Region(quadratic(SMALL_ANGLE), math.inf), "random base")]


def real_base_flat(results: Results) -> list[Quantity]:
    """Hardly any of the movement at right angles at the plateau's end."""
    return [_rise(results, "", PLATEAU_ANGLE, Region(-math.inf, FLAT), "real base")]


def quadratic(angle: float) -> float:
    """KL at an angle ÷ KL at right angles, of a KL that grows with the square of the distance, without a plateau."""
    return (math.sin(math.radians(angle) / 2) / math.sin(math.radians(FAR_DEGREES) / 2)) ** 2


def _rise(results: Results, base: str, angle: float, region: Region, what: str) -> Quantity:
    curves = results[f"sphere{base}"]
    columns = (at_step(curves, "kl", RANDOM, one) for one in (angle, FAR_DEGREES))
    return ratio(f"{what}: KL at {angle:g}° ÷ at {FAR_DEGREES:g}°", *columns, region)


def stronger(readout: str, one: str, other: str, region: Region = ABOVE_ONE) -> Measures:
    """One direction ÷ another: halfway along the straight path, and at the angle of the plateau's end."""

    def measures(results: Results) -> list[Quantity]:
        at = {"straight": HALFWAY, "sphere": PLATEAU_ANGLE}
        return [
            ratio(
                f"{_MOVED[readout]}: {one} ÷ {other}, {at[mode]:g} {unit}".replace(" °", "°"),
                at_step(results[mode], readout, one, at[mode]),
                at_step(results[mode], readout, other, at[mode]),
                region,
            )
            for mode, unit in _MODES.items()
        ]

    return measures


def earlier(mode: str, threshold: Threshold, readout: str = "kl", region: Region = MORE_OFTEN) -> Measures:
    """In which part of the prompts the real direction passes the threshold before the random one."""

    def measures(results: Results) -> list[Quantity]:
        crossed = _CROSSED[threshold] + (f" of {_MOVED[readout]}" if threshold == "relative" else "")
        what = f"{mode}: part of the prompts in which {REAL} passes {crossed} before {RANDOM}"
        return [share(what, first_more_often(*pair_times(results, mode, threshold, readout)), region)]

    return measures


def pair_times(
    results: Results, experiment: str, threshold: Threshold, readout: str = "kl"
) -> tuple[PerSequence, PerSequence]:
    """Crossings along the real and the random direction, by prompt."""
    curves = results[experiment]
    if threshold == "relative":
        found = relative_crossings(curves, (REAL, RANDOM), readout)
        return times(found[REAL]), times(found[RANDOM])
    return times(crossings(curves, REAL)), times(crossings(curves, RANDOM))


def together(*measures: Measures) -> Measures:
    """All of them."""
    return lambda results: [quantity for measure in measures for quantity in measure(results)]


def last_layer_gap(threshold: Threshold) -> Measures:
    """How often the real direction is first in the last layer, and by how many degrees."""

    def measures(results: Results) -> list[Quantity]:
        real, random = pair_times(results, "sphere-last-layer", threshold)
        crossed = _CROSSED[threshold]
        return [
            share(
                f"last layer: part of the prompts in which {REAL} passes {crossed} before {RANDOM}",
                first_more_often(real, random),
                NO_ORDER,
            ),
            median_gap(f"last layer: median angle of {crossed}, random - real", random, real, NO_GAP, "°"),
        ]

    return measures


def gap_shrinks(threshold: Threshold) -> Measures:
    """How much more often the real direction is first in the study's layer than in the last one."""

    def measures(results: Results) -> list[Quantity]:
        first = [first_more_often(*pair_times(results, layer, threshold)) for layer in ("sphere", "sphere-last-layer")]
        what = f"how often {REAL} passes {_CROSSED[threshold]} before {RANDOM}: this layer - last layer"
        return [difference(what, *first)]

    return measures


def corner_is_optimum(threshold: Threshold) -> Measures:
    """How often the angle at the real corner is below that at the next point of either side."""

    def measures(results: Results) -> list[Quantity]:
        found = triangle_times(results["triangle-real"], threshold)
        return [
            share(
                f"{_CROSSED[threshold]}: the real corner before {_named(one)}",
                first_more_often(found[corner(0)], found[one]),
                MORE_OFTEN,
            )
            for one in neighbours(list(found), 0)
        ]

    return measures


def real_corner_stands_out(threshold: Threshold) -> Measures:
    """How much more often a real corner is before its neighbours than a random corner is before its own."""

    def measures(results: Results) -> list[Quantity]:
        real, random = (triangle_times(results[f"triangle-{name}"], threshold) for name in ("real", "random"))
        at_random = np.mean([_dip(random, number) for number in range(3)], axis=0)
        what = f"{_CROSSED[threshold]}: how often before the neighbours, real corner - random corners"
        return [difference(what, _dip(real, 0), at_random)]

    return measures


def symmetric(threshold: Threshold) -> Measures:
    """Ratios of the median angles at three random corners."""

    def measures(results: Results) -> list[Quantity]:
        found = triangle_times(results["triangle-random"], threshold)
        names = ("top", "left", "right")
        return [
            median_ratio(
                f"median angle of {_CROSSED[threshold]}: {names[one]} ÷ {names[other]} random corner",
                found[corner(one)],
                found[corner(other)],
                SYMMETRIC,
            )
            for one, other in ((0, 1), (0, 2), (1, 2))
        ]

    return measures


def _dip(found: dict[Weights, PerSequence], number: int) -> PerSequence:
    """How often a corner is before its two neighbours, by prompt."""
    beside = neighbours(list(found), number)
    return np.mean([first_more_often(found[corner(number)], found[one]) for one in beside], axis=0)


def _named(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:.2g}" for weight in weights)
