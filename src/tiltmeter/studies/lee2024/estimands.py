"""The estimands of the claims of Lee & Heimersheim 2024 about directions that need no SAE.

Lengths are the paper's; `here` says what they are in the run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import Estimand, Region
from tiltmeter.studies.estimands import (
    Estimands,
    PerSequence,
    combined,
    double_ratio,
    fraction,
    late_l2,
    of_columns,
    ratio,
    read,
    readout_name,
)
from tiltmeter.studies.lee2024.experiments import DEGREES, PAIR_DISTANCE
from tiltmeter.studies.lengths import l2_of_one
from tiltmeter.studies.margins import LESS, MORE, MORE_OFTEN, NOT_MORE, SIMILAR
from tiltmeter.studies.results import Results
from tiltmeter.studies.scans import scan

SHORT, MIDDLE, LONG = 21.0, 51.0, 81.0
"""Lengths of the paper at which claims about all lengths are decided."""

DECIDING = (SHORT, MIDDLE, LONG)

DECIDING_ANGLES = (15.0, 40.0, 60.0)
"""The measured angles nearest to chords of those lengths, where x has the norm of the pair distance."""

OF_SINGLE_CURVES = (20.0, 52.0, 80.0)
"""Measured lengths of single curves nearest to those."""

MOVED = {"kl": "KL", "l2": "L2 after the last block"}


def here(curves: xr.Dataset, length: float) -> float:
    """One of the paper's lengths as it is in a run, L2: the same, or scaled by the pair distance."""
    return length * l2_of_one(curves, PAIR_DISTANCE)


def at(curves: xr.Dataset, direction: str, length: float, readout: str = "kl") -> PerSequence:
    """A readout along a direction at one of the paper's lengths."""
    return read(curves, readout, direction, here(curves, length))


def grid(curves: xr.Dataset, low: float = 0.0, high: float = np.inf) -> tuple[float, ...]:
    """The measured lengths in the paper's units, without 0 where nothing has changed, from `low` to `high`."""
    lengths = np.round(curves.step.to_numpy() / l2_of_one(curves, PAIR_DISTANCE), 6)
    return tuple(float(length) for length in lengths if length > 0 and low <= length <= high)


def along_lengths(
    curves: xr.Dataset,
    directions: tuple[str, str],
    lengths: tuple[float, ...],
    region: Region,
    readout: str = "kl",
    others: tuple[float, ...] | None = None,
) -> list[Estimand]:
    """A readout along one direction ÷ along another: decided at `lengths`, measured at `others` (the whole grid)."""
    name = readout_name(curves, readout)
    one, other = directions
    return scan(
        f"{MOVED[readout]}: {one} ÷ {other}",
        lambda label, length: ratio(label, at(curves, one, length, name), at(curves, other, length, name), region),
        lengths,
        grid(curves) if others is None else others,
    )


def ratio_of(experiment: str, one: str, other: str, region: Region = MORE, readout: str = "kl") -> Estimands:
    """KL (or `l2`, after the last block) of one direction ÷ that of another, at all lengths."""
    return lambda results: along_lengths(results[experiment], (one, other), DECIDING, region, readout)


def both_kinds_in_l2(experiment: str, region: Region) -> Estimands:
    """L2 after the last block, difference ÷ mixture, of cov-random and of real directions."""
    return combined(
        *(
            ratio_of(experiment, f"{kind}-difference", f"{kind}-mixture", region, "l2")
            for kind in ("cov-random", "real")
        )
    )


def early_gap_smaller(results: Results) -> list[Estimand]:
    """L2 after the last block, difference ÷ mixture: at the study's layer ÷ in the early one."""
    return [one for kind in ("cov-random", "real") for one in _later_over_early(results, kind)]


def _later_over_early(results: Results, kind: str) -> list[Estimand]:
    layers = [results["directions"], results["directions-early"]]
    names = (f"{kind}-difference", f"{kind}-mixture")

    def at_length(label: str, length: float) -> Estimand:
        columns = [at(curves, name, length, late_l2(curves)) for curves in layers for name in names]
        return of_columns(label, columns, double_ratio, MORE, "ratio")

    series = f"{kind}, L2 after the last block: difference ÷ mixture, later ÷ early layer"
    return scan(series, at_length, DECIDING, set.intersection(*(set(grid(curves)) for curves in layers)))


def at_constant_norm(kind: str) -> Estimands:
    """KL, difference ÷ mixture of `cov-random` or `real`, at equal angles from x and with its norm."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results["directions-sphere"]
        pair = (f"{kind}-difference", f"{kind}-mixture")

        def at_angle(label: str, angle: float) -> Estimand:
            one, other = (read(curves, "kl", name, angle) for name in pair)
            return ratio(label, one, other, NOT_MORE)

        series = f"KL at the norm of x: {pair[0]} ÷ {pair[1]}"
        return scan(series, at_angle, DECIDING_ANGLES, DEGREES[1:], "angle", "°")

    return estimands


def single_curves_above(directions: tuple[str, ...], other: str) -> Estimands:
    """The fraction of tokens whose own KL is higher along each direction than along another, at all lengths."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results["shapes"]
        return [one for direction in directions for one in _curves_above(curves, direction, other)]

    return estimands


def _curves_above(curves: xr.Dataset, direction: str, other: str) -> list[Estimand]:
    def higher(label: str, length: float) -> Estimand:
        gap = at(curves, direction, length) - at(curves, other, length)
        return fraction(label, (1 + np.sign(gap)) / 2, MORE_OFTEN)

    return scan(f"fraction of curves: KL of {direction} above {other}", higher, OF_SINGLE_CURVES, grid(curves))


def extremes(label: str, pairs: Mapping[str, tuple[PerSequence, PerSequence]]) -> list[Estimand]:
    """The largest and the smallest ratio, chosen once: chosen again in each bootstrap draw, they would be biased."""
    size = {name: float(np.nanmean(one) / np.nanmean(other)) for name, (one, other) in pairs.items()}
    most, least = max(size, key=size.__getitem__), min(size, key=size.__getitem__)
    ends = ((most, "largest", MORE), (least, "smallest", LESS))
    return [
        ratio(f"{label}: {name}, the {which} of {len(pairs)}", *pairs[name], region=region)._replace(
            picked_from=len(pairs)
        )
        for name, which, region in ends
    ]


def linear_start(results: Results) -> list[Estimand]:
    """L2 after the last block ÷ length, at the paper's length 11 ÷ at 1."""
    curves = results["directions"]
    l2 = late_l2(curves)
    return [
        ratio(
            f"{name}: L2 after the last block ÷ length, at 11 ÷ at 1",
            at(curves, name, 11.0, l2) / 11,
            at(curves, name, 1.0, l2),
            SIMILAR,
        )
        for name in ("isotropic", "cov-random-mixture", "real-mixture")
    ]
