"""The estimands of the claims of Heimersheim & Mendel 2024, with the regions that the post claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import MIN_SEQUENCES, Estimand, Region
from tiltmeter.studies.estimands import Estimands, PerSequence, fraction, odds_ratio, pair_distance, ratio
from tiltmeter.studies.heimersheim2024.curve_statistics import (
    FAR_DEGREES,
    FAR_LENGTH,
    THRESHOLD,
    Weights,
    at_distance,
    at_step,
    at_step_length,
    corner,
    crossings,
    is_first,
    median_ratio,
    neighbours,
    relative_crossings,
    triangle_crossings,
)
from tiltmeter.studies.heimersheim2024.experiments import RANDOM, REAL, SMALL_DEGREES, SMALL_LENGTHS
from tiltmeter.studies.margins import AS_OFTEN, LESS, MARGIN, MORE, MORE_OFTEN, SIMILAR
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.scans import scan

Threshold = Literal["absolute", "relative"]

SHORT, MEDIUM = 0.25, 0.5
"""Distances that represent all below the pair distance, in units of that mean."""

SMALL_ANGLE, PLATEAU_ANGLE = 20.0, 40.0
"""An angle within the plateau, and the angle at which the plateau ends in the post."""

ANTIPODE = 180.0
"""Degrees: all directions lead there."""

HALFWAY = 0.5
"""The middle of the straight path, in units of ‖x‖."""

FLAT = 0.1
"""Fraction of the value at 90° up to which a curve counts as near zero."""

APART = Region(0.7, math.inf)
"""The area under the ROC curve from which a classifier is called acceptable (Hosmer & Lemeshow 2000)."""

_MOVED = {"kl": "KL", "l2": "L2 after the last block", "cos": "1 - cosine after the last block"}
_CROSSED = {"absolute": "KL 0.5", "relative": "the relative threshold"}


class Reach(NamedTuple):
    """The distances that a claim is about, in pair distances (straight mode) or degrees (sphere mode)."""

    mode: str
    deciding: float
    others: tuple[float, ...]
    """Every distance that the claim is about."""


SHORT_STRAIGHT = Reach("straight", SHORT, (0.05, 0.1, 0.15, 0.2, SHORT))
SHORT_SPHERE = Reach("sphere", SMALL_ANGLE, (5.0, 10.0, 15.0, SMALL_ANGLE))
MEDIUM_STRAIGHT = Reach("straight", MEDIUM, (0.3, 0.35, 0.4, 0.45, MEDIUM))
MEDIUM_SPHERE = Reach("sphere", PLATEAU_ANGLE, (25.0, 30.0, 35.0, PLATEAU_ANGLE))


def plateau(readout: str, reach: Reach, base: str = "") -> Estimands:
    """Readout from a random base ÷ from a real one, same targets, at equal distances or angles.

    `base` is empty for the prompt's own activation, `-other-base` for another prompt's in its place.
    """
    real = "transplanted real" if base else "real"
    straight = reach.mode == "straight"
    read_at, axis, unit = (at_distance, "distance", " pair distances") if straight else (at_step, "angle", "°")

    def estimands(results: Results) -> list[Estimand]:
        random_base, real_base = results[f"{reach.mode}-random-base"], results[f"{reach.mode}{base}"]

        def at(label: str, distance: float) -> Estimand:
            pair = [read_at(curves, readout, RANDOM, distance) for curves in (random_base, real_base)]
            return ratio(label, pair[0], pair[1])

        series = f"{_MOVED[readout]}, {reach.mode}: random ÷ {real} base"
        return scan(series, at, (reach.deciding,), reach.others, axis, unit)

    return estimands


def flat_start(readout: str, reach: Reach, base: str = "") -> Estimands:
    """Readout near a real base ÷ that of a curve without a plateau, through the same value far out.

    That has KL and 1 - cosine growing with the square of the distance, L2 in proportion: merely weaker is no plateau.
    """
    label = f"{_MOVED[readout]}, {reach.mode}, {'transplanted ' if base else ''}real base: ÷ without a plateau"
    power = 1 if readout == "l2" else 2

    def on_sphere(results: Results) -> list[Estimand]:
        curves = results[f"sphere{base}"]
        near, far = (at_step(curves, readout, RANDOM, angle) for angle in (reach.deciding, FAR_DEGREES))
        share = quadratic(reach.deciding) ** (power / 2)
        return [ratio(f"{label}, at {reach.deciding:g}°", near, share * far, LESS)]

    def straight(results: Results) -> list[Estimand]:
        curves = results[f"straight{base}"]
        near = at_distance(curves, readout, RANDOM, reach.deciding)
        part = reach.deciding * pair_distance(curves) / at_step_length(curves, RANDOM, FAR_LENGTH)
        far = part**power * at_step(curves, readout, RANDOM, FAR_LENGTH)
        return [ratio(f"{label}, at distance {reach.deciding:g} pair distances", near, far, LESS)]

    return straight if reach.mode == "straight" else on_sphere


def random_base_rises(results: Results) -> list[Estimand]:
    """KL at a small angle ÷ KL at 90°, from a random base; claimed above a quadratic KL's, by the margin."""
    above_quadratic = Region(MARGIN * quadratic(SMALL_ANGLE), math.inf)
    return [_rise(results, "-random-base", SMALL_ANGLE, above_quadratic, "random base")]


def real_base_flat(results: Results) -> list[Estimand]:
    """KL at the end of the plateau ÷ KL at 90°, from a real base."""
    return [_rise(results, "", PLATEAU_ANGLE, Region(-math.inf, FLAT), "real base")]


def quadratic(angle: float) -> float:
    """KL at an angle ÷ KL at 90°, of a KL that grows with the square of the distance, without a plateau."""
    return (math.sin(math.radians(angle) / 2) / math.sin(math.radians(FAR_DEGREES) / 2)) ** 2


def _rise(results: Results, base: str, angle: float, region: Region, label: str) -> Estimand:
    curves = results[f"sphere{base}"]
    near, far = (at_step(curves, "kl", RANDOM, one) for one in (angle, FAR_DEGREES))
    return ratio(f"{label}: KL at {angle:g}° ÷ at {FAR_DEGREES:g}°", near, far, region)


def stronger(readout: str, mode: str, one: str, other: str, region: Region = MORE) -> Estimands:
    """One direction ÷ another at every step of a path: decided halfway, or at the angle of the plateau's end."""
    straight = mode == "straight"
    deciding, axis, unit = (HALFWAY, "length", " ‖x‖") if straight else (PLATEAU_ANGLE, "angle", "°")

    def estimands(results: Results) -> list[Estimand]:
        curves = results[mode]

        def at(label: str, step: float) -> Estimand:
            moved = [at_step(curves, readout, name, step) for name in (one, other)]
            return ratio(label, moved[0], moved[1], region)

        return scan(f"{_MOVED[readout]}, {mode}: {one} ÷ {other}", at, (deciding,), _apart(curves), axis, unit)

    return estimands


def _apart(curves: xr.Dataset) -> list[float]:
    """The steps at which directions lead to different points: all but the start and, on a sphere, the antipode.

    Without the small ones, which serve continuations.
    """
    small = (*SMALL_LENGTHS, *SMALL_DEGREES)
    return [float(step) for step in curves.step.to_numpy() if 0 < step < ANTIPODE and step not in small]


def earlier(mode: str, threshold: Threshold, readout: str = "kl", region: Region = MORE_OFTEN) -> Estimands:
    """The fraction of prompts in which the real direction passes the threshold before the random one."""

    def estimands(results: Results) -> list[Estimand]:
        crossed = _CROSSED[threshold] + (f" of {_MOVED[readout]}" if threshold == "relative" else "")
        label = f"{mode}: fraction of prompts in which {REAL} passes {crossed} before {RANDOM}"
        return [fraction(label, is_first(*paired_crossings(results, mode, threshold, readout)), region)]

    return estimands


def paired_crossings(
    results: Results, experiment: str, threshold: Threshold, readout: str = "kl"
) -> tuple[PerSequence, PerSequence]:
    """Crossings along the real and the random direction, by prompt.

    Raises:
        NotMeasured: KL passes the absolute threshold in too few prompts.
    """
    curves = results[experiment]
    if threshold == "relative":
        found = relative_crossings(curves, (REAL, RANDOM), readout)
        return found[REAL].value_or_inf, found[RANDOM].value_or_inf
    real, random = (crossings(curves, name).value_or_inf for name in (REAL, RANDOM))
    _check_crossed(real, random)
    return real, random


def last_layer_order(threshold: Threshold) -> Estimands:
    """The fraction of prompts in which the real direction passes the threshold first, in the last layer."""

    def estimands(results: Results) -> list[Estimand]:
        label = f"last layer: fraction of prompts in which {REAL} passes {_CROSSED[threshold]} before {RANDOM}"
        return [fraction(label, is_first(*paired_crossings(results, "sphere-last-layer", threshold)), AS_OFTEN)]

    return estimands


def last_layer_gap(threshold: Threshold) -> Estimands:
    """The median angle of random directions ÷ that of real ones, in the last layer."""

    def estimands(results: Results) -> list[Estimand]:
        real, random = paired_crossings(results, "sphere-last-layer", threshold)
        label = f"last layer: median angle of {_CROSSED[threshold]}, random ÷ real"
        return [median_ratio(label, random, real, SIMILAR)]

    return estimands


def gap_shrinks(threshold: Threshold) -> Estimands:
    """The odds that the real direction is first: in the study's layer ÷ in the last one."""

    def estimands(results: Results) -> list[Estimand]:
        here = is_first(*paired_crossings(results, "sphere", threshold))
        last = is_first(*paired_crossings(results, "sphere-last-layer", threshold))
        label = f"odds that {REAL} passes {_CROSSED[threshold]} before {RANDOM}: here ÷ last layer"
        return [odds_ratio(label, here, last)]

    return estimands


def corner_is_optimum(threshold: Threshold) -> Estimands:
    """The fraction of prompts in which the angle at the real corner is below that at the next point on either side."""
    label = f"fraction of prompts in which the real corner passes {_CROSSED[threshold]} before the blend"

    def estimands(results: Results) -> list[Estimand]:
        found = _on_triangle(results, "real", threshold)
        beside = neighbours(list(found), 0)
        return [
            fraction(f"{label} {_named(one)}", is_first(found[corner(0)], found[one]), MORE_OFTEN) for one in beside
        ]

    return estimands


def real_corner_stands_out(threshold: Threshold) -> Estimands:
    """The odds that a corner is before its neighbours: real ÷ random corners."""

    def estimands(results: Results) -> list[Estimand]:
        real, random = (_on_triangle(results, name, threshold) for name in ("real", "random"))
        at_random = _mean_known([_dip(random, number) for number in range(3)])
        label = f"odds that a corner passes {_CROSSED[threshold]} before its neighbours: real ÷ random"
        return [odds_ratio(label, _dip(real, 0), at_random)]

    return estimands


def symmetric(threshold: Threshold) -> Estimands:
    """Ratios of the median angles at three random corners."""

    def estimands(results: Results) -> list[Estimand]:
        found = _on_triangle(results, "random", threshold)
        names = ("top", "left", "right")
        return [
            median_ratio(
                f"median angle of {_CROSSED[threshold]}: {names[one]} ÷ {names[other]} random corner",
                found[corner(one)],
                found[corner(other)],
                SIMILAR,
            )
            for one, other in ((0, 1), (0, 2), (1, 2))
        ]

    return estimands


def _on_triangle(results: Results, name: str, threshold: Threshold) -> dict[Weights, PerSequence]:
    found = triangle_crossings(results[f"triangle-{name}"], threshold)
    if threshold == "absolute":
        _check_crossed(*found.values())
    return found


def _check_crossed(*found: PerSequence) -> None:
    """Refuse to compare if too few prompts pass the threshold at all."""
    crossed = int(np.isfinite(np.stack(found)).any(axis=0).sum())
    if crossed < MIN_SEQUENCES:
        raise NotMeasured(
            f"KL passes {THRESHOLD:g} nats in {crossed} of {len(found[0])} prompts; "
            f"{MIN_SEQUENCES} are needed to compare."
        )


def _dip(found: dict[Weights, PerSequence], number: int) -> PerSequence:
    """By prompt, the fraction of its two neighbours that a corner is before."""
    beside = neighbours(list(found), number)
    return _mean_known([is_first(found[corner(number)], found[one]) for one in beside])


def _mean_known(columns: Sequence[PerSequence]) -> PerSequence:
    """The mean per prompt over columns that are not NaN; NaN if all are."""
    return np.ma.masked_invalid(np.stack(columns)).mean(axis=0).filled(np.nan)


def _named(weights: Weights) -> str:
    """`0.88 + 0.12 + 0`: how much of each target."""
    return " + ".join(f"{weight:.2g}" for weight in weights)
