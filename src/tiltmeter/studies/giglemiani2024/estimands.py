"""The estimands of the claims of Giglemiani et al. 2024.

Rows are sequences. A row holds the steps of all types that are compared, so that a bootstrap draw takes them from the
same sequences. A censored curve is later than every step when distributions are compared, and counts as the last step
of the path in means (`within_path`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from tiltmeter.analysis.estimates import ABOVE_ONE, Estimand, Region
from tiltmeter.analysis.resampling import Rows
from tiltmeter.analysis.shapes import ks_distance
from tiltmeter.studies.estimands import (
    Estimands,
    PerSequence,
    ks_gap,
    late_l2,
    of_columns,
    ratio,
    read,
)
from tiltmeter.studies.giglemiani2024.curve_statistics import STATISTICS, censored_part, sample, within_path
from tiltmeter.studies.giglemiani2024.experiments import TARGET
from tiltmeter.studies.margins import FIRST, IN_ORDER, LESS, MORE, SIMILAR
from tiltmeter.studies.results import Results

CLOSE = Region(-np.inf, 0.25)
"""KS distances that count as "closely resemble"."""

ALIKE = Region(-np.inf, 0.15)
"""KS distances that count as "like". Two samples of 200 from one distribution exceed 0.135 in 5 % of cases."""

ANYWHERE = Region(-np.inf, np.inf)
"""For estimates that belong to no claim."""

EARLY, LATE = 20, 80
"""Places on a path, in per cent of its length, where a step-like curve is below and above a straight line."""


def column(results: Results, name: str, kind: str) -> PerSequence:
    """Steps of one type per sequence; infinity where censored."""
    return sample(results, name, kind).value_or_inf


def nearer(name: str, near: str, far: str) -> Estimands:
    """KS distance of `far` from real activations minus that of `near`."""

    def estimands(results: Results) -> list[Estimand]:
        columns = (column(results, name, kind) for kind in ("real", near, far))
        return [ks_gap(f"{STATISTICS[name].label}: KS from real, {far} - {near}", *columns)]

    return estimands


def within(names: tuple[str, ...], kind: str, region: Region) -> Estimands:
    """KS distance of a type from real activations, by each of these statistics."""

    def estimands(results: Results) -> list[Estimand]:
        return [distance(results, name, kind, region) for name in names]

    return estimands


def distance(results: Results, name: str, kind: str, region: Region) -> Estimand:
    """KS distance of a type from real activations, by one statistic."""
    columns = [column(results, name, one) for one in ("real", kind)]
    return of_columns(f"{STATISTICS[name].label}: KS of real and {kind}", columns, _ks, region)


def _ks(rows: Rows) -> float:
    return ks_distance(rows[:, 0], rows[:, 1])


def gap_shrinks(results: Results) -> list[Estimand]:
    """How much nearer structured is to real than the baseline is: with absolute steps minus with relative steps."""
    kinds = ("real", "synthetic-structured", "synthetic-baseline")
    columns = [column(results, name, kind) for name in ("ms-absolute", "ms-relative") for kind in kinds]
    return [of_columns("MS step: KS from real, baseline - structured, absolute - relative", columns, _gaps, FIRST)]


def _gaps(rows: Rows) -> float:
    return _gap(rows[:, :3]) - _gap(rows[:, 3:])


def _gap(rows: Rows) -> float:
    return ks_distance(rows[:, 0], rows[:, 2]) - ks_distance(rows[:, 0], rows[:, 1])


def means_in_order(name: str, *kinds: str) -> Estimands:
    """The mean step of each type ÷ that of the type before."""

    def estimands(results: Results) -> list[Estimand]:
        return list(_ratios(results, name, list(pairwise(kinds)), IN_ORDER))

    return estimands


def below(name: str, low: str, *others: str) -> Estimands:
    """The mean step of each of the others ÷ that of `low`."""

    def estimands(results: Results) -> list[Estimand]:
        return list(_ratios(results, name, [(low, other) for other in others], IN_ORDER))

    return estimands


def above(name: str, high: str, *others: str) -> Estimands:
    """The mean step of `high` ÷ that of each of the others."""

    def estimands(results: Results) -> list[Estimand]:
        return list(_ratios(results, name, [(other, high) for other in others], MORE))

    return estimands


def _ratios(results: Results, name: str, pairs: list[tuple[str, str]], region: Region) -> Iterator[Estimand]:
    for low, high in pairs:
        yield _ratio_of_means(results, name, high, low, region)


def _ratio_of_means(results: Results, name: str, one: str, other: str, region: Region) -> Estimand:
    """The mean step of one type ÷ that of another; the label says what part of either is censored."""
    shapes = [sample(results, name, kind) for kind in (one, other)]
    parts = [censored_part(shape) for shape in shapes]
    label = f"{STATISTICS[name].label}: mean of {one} ÷ {other}"
    if any(parts):
        label += f" (censored, counted as the last step: {' and '.join(f'{part:.1%}' for part in parts)})"
    first, second = (within_path(shape) for shape in shapes)
    return ratio(label, first, second, region)


def alike(name: str, one: str, other: str) -> Estimands:
    """The mean step of one type ÷ that of another, to be near 1."""

    def estimands(results: Results) -> list[Estimand]:
        return [_ratio_of_means(results, name, one, other, SIMILAR)]

    return estimands


def plateau_around_real(results: Results) -> list[Estimand]:
    """Mean L2 from real activations ÷ a straight line from their start to their end, early on the path.

    AP steps compare plateaus only where there are any: of straight curves they are slopes.
    """
    curves = results["plateaus-real"]
    values = read(curves, late_l2(curves), TARGET)
    early, whole = (values[:, round(at / 100 * (values.shape[1] - 1))] for at in (EARLY, 100))
    return [ratio(f"real base: L2 ÷ L2 of a straight line, at {EARLY} % of the way", early, whole * EARLY / 100, LESS)]


def step_like(results: Results) -> list[Estimand]:
    """Mean L2 toward real activations, compared with a straight line from start to target, early and late."""
    curves = results["relative"]
    values = read(curves, late_l2(curves), "real-difference")
    early, late, whole = (values[:, round(at / 100 * (values.shape[1] - 1))] for at in (EARLY, LATE, 100))
    return [
        ratio(f"L2 of a straight line ÷ L2, at {EARLY} % of the way", whole * EARLY / 100, early, ABOVE_ONE),
        ratio(f"L2 ÷ L2 of a straight line, at {LATE} % of the way", late, whole * LATE / 100, ABOVE_ONE),
    ]
