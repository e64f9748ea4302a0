"""The quantities that the claims of Lee & Heimersheim 2024 are about.

Lengths are the paper's; on another model they are scaled by the mean distance of two real activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from tiltmeter.evidence import ABOVE_ONE, BELOW_ONE, Quantity, Region
from tiltmeter.quantities import PerSequence, late_l2, of_columns, pair_distance, ratio, read
from tiltmeter.results import NotMeasured, Results, saes_by_kind, saes_of
from tiltmeter.studies.lee2024.sweeps import PAIR_DISTANCE

SHORT, MIDDLE, LONG = 21.0, 51.0, 81.0
"""Lengths of the paper that stand for all."""

SIMILAR = Region(0.8, 1.25)
"""The margin of "nearly the same": a ratio of means within a quarter."""

CLOSE = Region(0.67, 1.5)
"""The margin of "close": within a half."""

END_TO_END = ("e2e", "e2e+ds")
ALL_KINDS = ("local", *END_TO_END)

MATCHED_L0 = 30.0
"""The L0 at which the paper compares kinds of SAE: 30.9 local, 27.5 e2e, 31.4 e2e+ds."""


def at(curves: xr.Dataset, direction: str, length: float, readout: str = "kl") -> PerSequence:
    """A readout along a direction at one of the paper's lengths, scaled."""
    return read(curves, readout, direction, length / PAIR_DISTANCE * pair_distance(curves))


def ratio_of(
    experiment: str,
    one: str,
    other: str,
    lengths: tuple[float, ...] = (SHORT, MIDDLE, LONG),
    region: Region = ABOVE_ONE,
) -> Callable[[Results], list[Quantity]]:
    """KL of one direction ÷ that of another, at some lengths."""

    def quantities(results: Results) -> list[Quantity]:
        curves = results[experiment]
        return [
            ratio(
                f"KL of {one} ÷ {other} at length {length:g}",
                at(curves, one, length),
                at(curves, other, length),
                region,
            )
            for length in lengths
        ]

    return quantities


def late_distance_gap(results: Results) -> list[Quantity]:
    """L2 at the end, difference ÷ mixture, in the early layer."""
    curves = results["directions-early"]
    pairs = [(f"{kind}-difference", f"{kind}-mixture") for kind in ("cov-random", "real")]
    return [
        ratio(
            f"L2 at the end: {one} ÷ {other} at length {length:g}",
            at(curves, one, length, late_l2(curves)),
            at(curves, other, length, late_l2(curves)),
            SIMILAR,
        )
        for one, other in pairs
        for length in (SHORT, MIDDLE, LONG)
    ]


def in_each_layer(one: str, other: str, region: Region) -> Callable[[Results], list[Quantity]]:
    """KL of one substitution ÷ that of another, in each layer."""

    def quantities(results: Results) -> list[Quantity]:
        return [
            ratio(f"layer {layer}: {one} ÷ {other}", *_substituted(curves, one, other), region)
            for layer, curves in results.by_layer("layers").items()
        ]

    return quantities


def _substituted(curves: xr.Dataset, one: str, other: str) -> tuple[PerSequence, PerSequence]:
    (sae,) = saes_of(curves)
    return read(curves, "kl", f"{one}:{sae}", 1.0), read(curves, "kl", f"{other}:{sae}", 1.0)


def some_above_some_below(results: Results) -> list[Quantity]:
    """SAE(x) ÷ cov-random mixture: the largest and the smallest ratio of any layer."""
    layers = list(results.by_layer("layers").values())
    if len(layers) < 2:
        raise NotMeasured("Only one layer has an SAE that was trained to reconstruct.")
    pairs = [_substituted(curves, "sae-error", "epsilon-cov-random-mixture") for curves in layers]
    columns = [column for pair in pairs for column in pair]
    return _extremes("KL of SAE(x) ÷ cov-random mixture", "layer", columns)


def _extremes(what: str, over: str, columns: list[np.ndarray]) -> list[Quantity]:
    """The largest and the smallest of some ratios; columns are numerator, denominator, numerator, ..."""

    def ratios(rows: np.ndarray) -> np.ndarray:
        means = np.nanmean(rows, axis=0)
        return means[::2] / means[1::2]

    return [
        of_columns(f"{what}: largest of any {over}", columns, lambda r: float(ratios(r).max()), ABOVE_ONE),
        of_columns(f"{what}: smallest of any {over}", columns, lambda r: float(ratios(r).min()), BELOW_ONE),
    ]


def at_study_layer(results: Results) -> list[Quantity]:
    """SAE(x) ÷ cov-random mixture, of each SAE at the study's layer that was trained to reconstruct."""
    curves = results["reconstructions"]
    return [
        ratio(
            f"{sae}: SAE(x) ÷ cov-random mixture",
            read(curves, "kl", f"sae-error:{sae}", 1.0),
            read(curves, "kl", f"epsilon-cov-random-mixture:{sae}", 1.0),
            SIMILAR,
        )
        for sae in _of_kind(curves, "local")
    ]


def _of_kind(curves: xr.Dataset, kind: str, fewest: int = 1) -> list[str]:
    """SAEs of a kind, the sparsest first."""
    found = saes_by_kind(curves).get(kind, [])
    if len(found) < fewest:
        few = "No SAE" if not found else f"Only {len(found)} SAE"
        raise NotMeasured(f"{few} of the kind {kind} at {curves.attrs['site']} was given; this needs {fewest}.")
    return found


def plateau(results: Results) -> list[Quantity]:
    """How steep the mean curve is in its first quarter, as a part of its later steepness."""
    curves = results["errors"]
    return [
        of_columns(
            f"{sae}: slope of KL up to {SHORT:g} ÷ slope from {MIDDLE:g} to {LONG:g}",
            [at(curves, f"sae-error:{sae}", length) for length in (0.0, SHORT, MIDDLE, LONG)],
            _slopes(SHORT / (LONG - MIDDLE)),
            Region(-np.inf, 0.5),
        )
        for sae in saes_of(curves)
    ]


def straight_end(results: Results) -> list[Quantity]:
    """Slope of the mean curve after its plateau ÷ at its end, along errors of SAEs that were trained to reconstruct."""
    curves = results["errors"]
    return [
        of_columns(
            f"{sae}: slope of KL from 51 to 71 ÷ slope from 81 to 101",
            [at(curves, f"sae-error:{sae}", length) for length in (51.0, 71.0, 81.0, 101.0)],
            _slopes(1.0),
            CLOSE,
        )
        for sae in _of_kind(curves, "local")
    ]


def _slopes(lengths: float) -> Callable[[np.ndarray], float]:
    """Ratio of two rises, over the ratio of the lengths that they take."""

    def statistic(rows: np.ndarray) -> float:
        a, b, c, d = np.nanmean(rows, axis=0)
        return (b - a) / (d - c) / lengths

    return statistic


def sparser_is_stronger(
    experiment: str, direction: str, kinds: tuple[str, ...], lengths: tuple[float, ...], region: Region = ABOVE_ONE
) -> Callable[[Results], list[Quantity]]:
    """KL of the sparsest SAE of a kind ÷ that of the densest."""

    def quantities(results: Results) -> list[Quantity]:
        return list(_by_sparsity(results[experiment], direction, kinds, lengths, region))

    return quantities


def _by_sparsity(
    curves: xr.Dataset, direction: str, kinds: tuple[str, ...], lengths: tuple[float, ...], region: Region
) -> Iterator[Quantity]:
    given = [kind for kind in kinds if len(saes_by_kind(curves).get(kind, [])) > 1]
    if not given:
        raise NotMeasured(f"This needs two SAEs of one of the kinds {', '.join(kinds)} at {curves.attrs['site']}.")
    for kind in given:
        sparse, *_, dense = _of_kind(curves, kind, 2)
        for length in lengths:
            yield ratio(
                f"{kind}: KL of the sparsest ({sparse}) ÷ the densest ({dense}) at length {length:g}",
                at(curves, f"{direction}:{sparse}", length),
                at(curves, f"{direction}:{dense}", length),
                region,
            )


def each_sae(
    experiment: str, direction: str, kinds: tuple[str, ...], other: str, lengths: tuple[float, ...], region: Region
) -> Callable[[Results], list[Quantity]]:
    """KL along a direction of each SAE ÷ that along a baseline."""

    def quantities(results: Results) -> list[Quantity]:
        curves = results[experiment]
        saes = [sae for kind in kinds for sae in saes_by_kind(curves).get(kind, [])]
        if not saes:
            raise NotMeasured(f"No SAE of the kinds {', '.join(kinds)} at {curves.attrs['site']} was given.")
        return [
            ratio(
                f"{sae}: KL of {direction} ÷ {other} at length {length:g}",
                at(curves, f"{direction}:{sae}", length),
                at(curves, other, length),
                region,
            )
            for sae in saes
            for length in lengths
        ]

    return quantities


def spike(results: Results) -> list[Quantity]:
    """Growth of KL from 51 to 101 along errors, beside that along the cov-random mixture."""
    curves = results["errors"]
    saes = [sae for kind in END_TO_END for sae in saes_by_kind(curves).get(kind, [])]
    if not saes:
        raise NotMeasured("No end-to-end SAE was given.")
    names = [(sae, (f"sae-error:{sae}", "cov-random-mixture")) for sae in saes]
    return [
        of_columns(
            f"{sae}: growth of KL from 51 to 101, error ÷ cov-random mixture",
            [at(curves, name, length) for name in pair for length in (51.0, 101.0)],
            lambda r: float(np.divide(*_growths(r))),
            ABOVE_ONE,
        )
        for sae, pair in names
    ]


def _growths(rows: np.ndarray) -> tuple[float, float]:
    a, b, c, d = np.nanmean(rows, axis=0)
    return b / a, d / c


def above_and_below_mixture(results: Results) -> list[Quantity]:
    """Features ÷ cov-random mixture: the largest and the smallest ratio of any SAE."""
    curves = results["features"]
    columns = [
        column
        for sae in saes_of(curves)
        for column in (at(curves, f"sae-feature:{sae}", MIDDLE), at(curves, "cov-random-mixture", MIDDLE))
    ]
    return _extremes(f"KL of sae-feature ÷ cov-random mixture at length {MIDDLE:g}", "SAE", columns)


def matched(curves: xr.Dataset, kind: str) -> str:
    """The SAE of a kind whose L0 is nearest to the paper's."""
    facts = saes_of(curves)
    return min(_of_kind(curves, kind), key=lambda sae: abs(facts[sae]["l0"] - MATCHED_L0))


def kinds_compared(one: str, other: str, lengths: tuple[float, ...]) -> Callable[[Results], list[Quantity]]:
    """KL along features of one kind of SAE ÷ another, at the L0 where the paper compares them."""

    def quantities(results: Results) -> list[Quantity]:
        curves = results["features"]
        first, second = matched(curves, one), matched(curves, other)
        return [
            ratio(
                f"KL of features: {first} ÷ {second} at length {length:g}",
                at(curves, f"sae-feature:{first}", length),
                at(curves, f"sae-feature:{second}", length),
            )
            for length in lengths
        ]

    return quantities


def gap_shrinks(results: Results) -> list[Quantity]:
    """How far features of local SAEs are above those of e2e+ds, short ÷ long."""
    curves = results["features"]
    names = [f"sae-feature:{matched(curves, kind)}" for kind in ("local", "e2e+ds")]
    return [
        of_columns(
            "local ÷ e2e+ds at length 21, over the same at 61",
            [at(curves, name, length) for length in (21.0, 61.0) for name in names],
            _double_ratio,
            ABOVE_ONE,
        )
    ]


def _double_ratio(rows: np.ndarray) -> float:
    a, b, c, d = np.nanmean(rows, axis=0)
    return (a / b) / (c / d)


def farther_yet_closer(results: Results) -> list[Quantity]:
    """Distance and KL of reconstructions, end-to-end ÷ local, at the L0 where the paper compares them."""
    curves = results["reconstructions"]
    base = matched(curves, "local")
    found = []
    for kind in END_TO_END:
        if kind in saes_by_kind(curves):
            name = matched(curves, kind)
            for readout, what, region in (("length", "distance ε", ABOVE_ONE), ("kl", "KL", BELOW_ONE)):
                values = [read(curves, readout, f"sae-error:{sae}", 1.0) for sae in (name, base)]
                found.append(ratio(f"{what} of SAE(x): {name} ÷ {base}", values[0], values[1], region))
    if not found:
        raise NotMeasured("No end-to-end SAE was given.")
    return found


def linear_start(results: Results) -> list[Quantity]:
    """L2 at the end per length, a little further ÷ at the first length."""
    curves = results["directions"]
    l2 = late_l2(curves)
    return [
        of_columns(
            f"{name}: L2 at the end per length, at 11 ÷ at 1",
            [at(curves, name, 11.0, l2) / 11, at(curves, name, 1.0, l2)],
            lambda r: float(np.nanmean(r[:, 0]) / np.nanmean(r[:, 1])),
            Region(0.9, 1.1),
        )
        for name in ("isotropic", "cov-random-mixture", "real-mixture")
    ]
