"""The estimands of the claims of Lee & Heimersheim 2024.

Lengths are the paper's; on another model they are scaled by the pair distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import ABOVE_ONE, BELOW_ONE, Estimand, Region
from tiltmeter.studies.estimands import (
    SIMILAR,
    Estimands,
    PerSequence,
    combined,
    double_ratio,
    late_l2,
    of_columns,
    pair_distance,
    ratio,
    read,
    readout_name,
)
from tiltmeter.studies.lee2024.experiments import PAIR_DISTANCE
from tiltmeter.studies.results import NotMeasured, Results, saes_by_kind, saes_of

SHORT, MIDDLE, LONG = 21.0, 51.0, 81.0
"""Lengths of the paper that represent all lengths."""

CLOSE = Region(0.67, 1.5)
"""The margin for "close": a ratio from 0.67 to 1.5."""

END_TO_END = ("e2e", "e2e+ds")
ALL_KINDS = ("local", *END_TO_END)

QUADRATIC = SHORT / (MIDDLE + LONG)
"""The plateau's ratio of slopes for a KL that grows with the square of the length, without a plateau."""

FLATTER = Region(-np.inf, SIMILAR.low * QUADRATIC)
"""Below the quadratic's ratio by more than the margin for "similar"."""

EXCEPTED_L0 = 30.0
"""e2e SAEs that the paper excepts from "the opposite" are sparser: L0 21.0 and 27.5."""

MATCHED_L0 = 30.0
"""The L0 at which the paper compares kinds of SAE: 30.9 local, 27.5 e2e, 31.4 e2e+ds."""


def at(curves: xr.Dataset, direction: str, length: float, readout: str = "kl") -> PerSequence:
    """A readout along a direction at one of the paper's lengths, scaled."""
    return read(curves, readout, direction, length / PAIR_DISTANCE * pair_distance(curves))


def ratio_of(experiment: str, one: str, other: str, region: Region = ABOVE_ONE, readout: str = "kl") -> Estimands:
    """KL (or `l2`, after the last block) of one direction ÷ that of another, at three lengths."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results[experiment]
        name = readout_name(curves, readout)
        return [
            ratio(
                f"{'L2 after the last block' if readout == 'l2' else 'KL'}: {one} ÷ {other} at length {length:g}",
                at(curves, one, length, name),
                at(curves, other, length, name),
                region,
            )
            for length in (SHORT, MIDDLE, LONG)
        ]

    return estimands


def both_kinds_in_l2(results: Results) -> list[Estimand]:
    """L2 after the last block, difference ÷ mixture, of cov-random and of real directions."""
    parts = (
        ratio_of("directions", f"{kind}-difference", f"{kind}-mixture", readout="l2") for kind in ("cov-random", "real")
    )
    return combined(*parts)(results)


def early_gap_smaller(results: Results) -> list[Estimand]:
    """L2 after the last block, difference ÷ mixture: at the study's layer ÷ in the early one."""
    layers = [results["directions"], results["directions-early"]]
    found = []
    for kind in ("cov-random", "real"):
        names = (f"{kind}-difference", f"{kind}-mixture")
        for length in (SHORT, MIDDLE, LONG):
            columns = [at(curves, name, length, late_l2(curves)) for curves in layers for name in names]
            label = f"{kind}, L2 after the last block at length {length:g}: difference ÷ mixture, later ÷ early layer"
            found.append(of_columns(label, columns, double_ratio, ABOVE_ONE, "ratio"))
    return found


def late_distance_gap(results: Results) -> list[Estimand]:
    """L2 after the last block, difference ÷ mixture, in the early layer."""
    curves = results["directions-early"]
    pairs = [(f"{kind}-difference", f"{kind}-mixture") for kind in ("cov-random", "real")]
    return [
        ratio(
            f"L2 after the last block: {one} ÷ {other} at length {length:g}",
            at(curves, one, length, late_l2(curves)),
            at(curves, other, length, late_l2(curves)),
            SIMILAR,
        )
        for one, other in pairs
        for length in (SHORT, MIDDLE, LONG)
    ]


def extremes(label: str, pairs: Mapping[str, tuple[PerSequence, PerSequence]]) -> list[Estimand]:
    """The largest and the smallest ratio, chosen once: chosen again in each bootstrap draw, they would be biased."""
    size = {name: float(np.nanmean(one) / np.nanmean(other)) for name, (one, other) in pairs.items()}
    most, least = max(size, key=size.__getitem__), min(size, key=size.__getitem__)
    ends = ((most, "largest", ABOVE_ONE), (least, "smallest", BELOW_ONE))
    return [
        ratio(f"{label}: {name}, the {which} of {len(pairs)}", *pairs[name], region=region)._replace(
            picked_from=len(pairs)
        )
        for name, which, region in ends
    ]


def of_kind(curves: xr.Dataset, kind: str, fewest: int = 1) -> list[str]:
    """SAEs of a kind, the sparsest first."""
    found = saes_by_kind(curves).get(kind, [])
    if len(found) < fewest:
        few = "No SAE" if not found else f"Only {len(found)} SAE"
        raise NotMeasured(f"{few} of the kind {kind} at {curves.attrs['site']} was given; this needs {fewest}.")
    return found


def plateau(results: Results) -> list[Estimand]:
    """Slope of the mean KL along each SAE's error up to a short length ÷ its slope at later lengths."""
    curves = results["errors"]
    return [
        of_columns(
            f"{sae}: slope of KL up to {SHORT:g} ÷ slope from {MIDDLE:g} to {LONG:g}",
            [at(curves, f"sae-error:{sae}", length) for length in (0.0, SHORT, MIDDLE, LONG)],
            _slopes(SHORT / (LONG - MIDDLE)),
            FLATTER,
            "ratio",
        )
        for sae in saes_of(curves)
    ]


def straight_end(results: Results) -> list[Estimand]:
    """Slope of the mean curve after its plateau ÷ at its end, along errors of SAEs that were trained to reconstruct."""
    curves = results["errors"]
    return [
        of_columns(
            f"{sae}: slope of KL from 51 to 71 ÷ slope from 81 to 101",
            [at(curves, f"sae-error:{sae}", length) for length in (51.0, 71.0, 81.0, 101.0)],
            _slopes(1.0),
            CLOSE,
            "ratio",
        )
        for sae in of_kind(curves, "local")
    ]


def _slopes(lengths: float) -> Callable[[np.ndarray], float]:
    """Ratio of two rises, over the ratio of the lengths that they take."""

    def statistic(rows: np.ndarray) -> float:
        a, b, c, d = np.nanmean(rows, axis=0)
        return (b - a) / (d - c) / lengths

    return statistic


def sparser_is_stronger(
    experiment: str, direction: str, kinds: tuple[str, ...], lengths: tuple[float, ...]
) -> Estimands:
    """KL of the sparsest SAE of a kind ÷ that of the densest."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results[experiment]
        given = {kind: saes_by_kind(curves).get(kind, []) for kind in kinds}
        return list(_by_sparsity(curves, direction, given, lengths, ABOVE_ONE))

    return estimands


def sparser_is_weaker(results: Results) -> list[Estimand]:
    """KL of the sparsest end-to-end SAE ÷ the densest, at small lengths, without those that the paper excepts."""
    curves = results["errors"]
    facts = saes_of(curves)
    given = {
        kind: [sae for sae in saes_by_kind(curves).get(kind, []) if kind != "e2e" or facts[sae]["l0"] > EXCEPTED_L0]
        for kind in END_TO_END
    }
    return list(_by_sparsity(curves, "sae-error", given, (11.0, SHORT, 41.0), BELOW_ONE))


def _by_sparsity(
    curves: xr.Dataset, direction: str, given: Mapping[str, list[str]], lengths: tuple[float, ...], region: Region
) -> Iterator[Estimand]:
    """`given`: SAEs by kind, the sparsest first."""
    if not any(len(saes) > 1 for saes in given.values()):
        raise NotMeasured(f"This needs two SAEs of one of the kinds {', '.join(given)} at {curves.attrs['site']}.")
    for kind, saes in given.items():
        for length in lengths if len(saes) > 1 else ():
            yield ratio(
                f"{kind}: KL of the sparsest ({saes[0]}) ÷ the densest ({saes[-1]}) at length {length:g}",
                at(curves, f"{direction}:{saes[0]}", length),
                at(curves, f"{direction}:{saes[-1]}", length),
                region,
            )


def each_sae(
    experiment: str, direction: str, kinds: tuple[str, ...], other: str, lengths: tuple[float, ...], region: Region
) -> Estimands:
    """KL along a direction of each SAE ÷ that along a baseline."""

    def estimands(results: Results) -> list[Estimand]:
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

    return estimands


def spike(results: Results) -> list[Estimand]:
    """KL at 101 ÷ KL at 51 along errors, divided by the same along the cov-random mixture."""
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
            "ratio",
        )
        for sae, pair in names
    ]


def _growths(rows: np.ndarray) -> tuple[float, float]:
    a, b, c, d = np.nanmean(rows, axis=0)
    return b / a, d / c


def above_and_below_mixture(results: Results) -> list[Estimand]:
    """Features ÷ cov-random mixture: the largest and the smallest ratio of any SAE.

    Raises:
        NotMeasured: only one SAE was given.
    """
    curves = results["features"]
    if len(saes_of(curves)) == 1:
        raise NotMeasured("The claim is about several SAEs; only one was given.")
    pairs = {
        sae: (at(curves, f"sae-feature:{sae}", MIDDLE), at(curves, "cov-random-mixture", MIDDLE))
        for sae in saes_of(curves)
    }
    return extremes(f"KL of sae-feature ÷ cov-random mixture at length {MIDDLE:g}", pairs)


def matched(curves: xr.Dataset, kind: str) -> str:
    """The SAE of a kind whose L0 is nearest to the paper's."""
    facts = saes_of(curves)
    return min(of_kind(curves, kind), key=lambda sae: abs(facts[sae]["l0"] - MATCHED_L0))


def kinds_compared(one: str, other: str, lengths: tuple[float, ...]) -> Estimands:
    """KL along features of one kind of SAE ÷ another, at the L0 where the paper compares them."""

    def estimands(results: Results) -> list[Estimand]:
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

    return estimands


def gap_shrinks(results: Results) -> list[Estimand]:
    """KL of features, local ÷ e2e+ds: at a short length ÷ at a long one."""
    curves = results["features"]
    names = [f"sae-feature:{matched(curves, kind)}" for kind in ("local", "e2e+ds")]
    return [
        of_columns(
            "KL of features, local ÷ e2e+ds: at length 21 ÷ at 61",
            [at(curves, name, length) for length in (21.0, 61.0) for name in names],
            double_ratio,
            ABOVE_ONE,
            "ratio",
        )
    ]


def linear_start(results: Results) -> list[Estimand]:
    """L2 after the last block ÷ length, at the paper's length 11 ÷ at 1."""
    curves = results["directions"]
    l2 = late_l2(curves)
    return [
        of_columns(
            f"{name}: L2 after the last block ÷ length, at 11 ÷ at 1",
            [at(curves, name, 11.0, l2) / 11, at(curves, name, 1.0, l2)],
            lambda r: float(np.nanmean(r[:, 0]) / np.nanmean(r[:, 1])),
            Region(0.9, 1.1),
            "ratio",
        )
        for name in ("isotropic", "cov-random-mixture", "real-mixture")
    ]
