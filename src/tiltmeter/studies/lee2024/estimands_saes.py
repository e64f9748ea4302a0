"""The estimands of the claims of Lee & Heimersheim 2024 about errors and features of SAEs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import Estimand, Region
from tiltmeter.analysis.resampling import OfMeans
from tiltmeter.studies.estimands import Estimands, double_ratio, of_columns, ratio, readout_name
from tiltmeter.studies.lee2024.estimands import LONG, MIDDLE, MOVED, SHORT, along_lengths, at, extremes, grid
from tiltmeter.studies.margins import LESS, LESS_OFTEN, MORE, MORE_OFTEN, SIMILAR
from tiltmeter.studies.orders import in_order
from tiltmeter.studies.results import NotMeasured, Results, saes_by_family, saes_by_kind, saes_of
from tiltmeter.studies.scans import scan

END_TO_END = ("e2e", "e2e+ds")
ALL_KINDS = ("local", *END_TO_END)

QUADRATIC = SHORT / (MIDDLE + LONG)
"""The plateau's ratio of slopes for a KL that grows with the square of the length, without a plateau."""

FLATTER = Region(-np.inf, LESS.high * QUADRATIC)
"""Below the quadratic's ratio by more than the margin."""

EXCEPTED_L0 = 30.0
"""e2e SAEs that the paper excepts from "the opposite" are sparser: L0 21.0 and 27.5."""

MATCHED_L0 = 30.0
"""The L0 at which the paper compares kinds of SAE: 30.9 local, 27.5 e2e, 31.4 e2e+ds."""


class Lengths(NamedTuple):
    """The paper's lengths that a claim is about."""

    deciding: tuple[float, ...]
    low: float = 0.0
    high: float = np.inf
    """The range of lengths that the claim is about; the whole of it is measured."""

    def others(self, curves: xr.Dataset) -> tuple[float, ...]:
        """The measured lengths in the range."""
        return grid(curves, self.low, self.high)


ANY = Lengths((SHORT, MIDDLE, LONG))
EVERY = Lengths((11.0, SHORT, MIDDLE, LONG, 101.0))
LOW = Lengths((SHORT, 41.0), high=50.0)
NEAREST = Lengths((SHORT,), high=SHORT)
NEAR = Lengths((11.0, SHORT, 41.0), high=50.0)
FAR = Lengths((LONG, 101.0), low=70.0)


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
            SIMILAR,
            "ratio",
        )
        for sae in of_kind(curves, "local")
    ]


def _slopes(lengths: float) -> OfMeans:
    """Ratio of two rises, over the ratio of the lengths that they take."""
    return OfMeans(lambda m: (m[..., 1] - m[..., 0]) / (m[..., 3] - m[..., 2]) / lengths)


def sparser_is_stronger(
    experiment: str, direction: str, kinds: tuple[str, ...], lengths: Lengths, readout: str = "kl"
) -> Estimands:
    """The order of effects along a direction by L0, the sparsest first, within each family of SAEs."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results[experiment]
        return _by_sparsity(curves, direction, saes_by_family(curves, kinds), lengths, MORE_OFTEN, readout)

    return estimands


def sparser_is_weaker(readout: str) -> Estimands:
    """The order of effects of end-to-end SAEs' errors by L0 at small lengths, without those that the paper excepts."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results["errors"]
        facts = saes_of(curves)
        given = {
            family: [sae for sae in saes if facts[sae]["kind"] != "e2e" or facts[sae]["l0"] > EXCEPTED_L0]
            for family, saes in saes_by_family(curves, END_TO_END).items()
        }
        return _by_sparsity(curves, "sae-error", given, NEAR, LESS_OFTEN, readout)

    return estimands


def _by_sparsity(
    curves: xr.Dataset,
    direction: str,
    families: Mapping[str, list[str]],
    lengths: Lengths,
    region: Region,
    readout: str,
) -> list[Estimand]:
    """`families`: SAEs by family, the sparsest first."""
    several = {family: saes for family, saes in families.items() if len(saes) > 1}
    if not several:
        kinds = ", ".join(families) or "wanted kinds"
        raise NotMeasured(f"This needs two SAEs of one family ({kinds}) at {curves.attrs['site']}.")
    name = readout_name(curves, readout)

    def order(saes: list[str]) -> Callable[[str, float], Estimand]:
        return lambda label, length: in_order(
            label, [at(curves, f"{direction}:{sae}", length, name) for sae in saes], region
        )

    return [
        one
        for family, saes in several.items()
        for one in scan(
            f"{family}: fraction of pairs of {len(saes)} SAEs of which the sparser has the higher {MOVED[readout]}",
            order(saes),
            lengths.deciding,
            lengths.others(curves),
        )
    ]


def each_sae(
    experiment: str,
    direction: str,
    kinds: tuple[str, ...],
    other: str,
    lengths: Lengths,
    region: Region,
    readout: str = "kl",
) -> Estimands:
    """KL (or L2) along a direction of each SAE ÷ that along a baseline."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results[experiment]
        saes = [sae for kind in kinds for sae in saes_by_kind(curves).get(kind, [])]
        if not saes:
            raise NotMeasured(f"No SAE of the kinds {', '.join(kinds)} at {curves.attrs['site']} was given.")
        others = lengths.others(curves)
        pairs = [(f"{direction}:{sae}", other) for sae in saes]
        return [one for pair in pairs for one in along_lengths(curves, pair, lengths.deciding, region, readout, others)]

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
            _GROWTHS,
            MORE,
            "ratio",
        )
        for sae, pair in names
    ]


_GROWTHS = OfMeans(lambda m: m[..., 1] / m[..., 0] / (m[..., 3] / m[..., 2]))
"""Of four columns: growth from the first to the second, over that from the third to the fourth."""


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


def kinds_compared(one: str, other: str, lengths: Lengths, region: Region = MORE, readout: str = "kl") -> Estimands:
    """KL (or L2) along features of one kind of SAE ÷ another, at the L0 where the paper compares them."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results["features"]
        pair = tuple(f"sae-feature:{matched(curves, kind)}" for kind in (one, other))
        return along_lengths(curves, (pair[0], pair[1]), lengths.deciding, region, readout, lengths.others(curves))

    return estimands


def more_isotropic(one: str, other: str) -> Estimands:
    """Mean cosine of a feature with the nearest other one: of one kind of SAE ÷ of another, at the paper's L0."""

    def estimands(results: Results) -> list[Estimand]:
        nearest = results["decoders"].nearest
        pair = [matched(results["features"], kind) for kind in (one, other)]
        columns = [nearest.sel(sae=sae).to_numpy() for sae in pair]
        label = f"mean cosine of a feature with the nearest other one: {pair[0]} ÷ {pair[1]}"
        return [ratio(label, columns[0], columns[1], LESS)._replace(documents=np.arange(nearest.sizes["sequence"]))]

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
            MORE,
            "ratio",
        )
    ]
