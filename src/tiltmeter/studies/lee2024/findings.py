"""What a run found in the figures of Lee & Heimersheim 2024, in a sentence or two each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import xarray as xr

from tiltmeter.analysis.shape_tables import shape_summary, shape_table
from tiltmeter.reports.tables.format import three_digits
from tiltmeter.studies.comparisons import TOGETHER, Pair, compared, difference, means, too_few, verb
from tiltmeter.studies.estimands import late_l2
from tiltmeter.studies.lee2024.estimands import matched
from tiltmeter.studies.lee2024.experiments import BASELINES, PAIR_DISTANCE
from tiltmeter.studies.results import Results, saes_by_kind, saes_of

Find = Callable[[Results], str]

LENGTHS = (21.0, 61.0)
"""Of the paper; sentences are about these, scaled."""


def pairs(experiment: str, readout: str, wanted: Sequence[Pair]) -> Find:
    """Compare directions at two lengths."""

    def find(results: Results) -> str:
        curves = results[experiment]
        name = late_l2(curves) if readout == "l2" else readout
        return compared(curves, name, wanted, [_scaled(curves, length) for length in LENGTHS])

    return find


def beside(other: str, experiment: str, direction: str, readout: str, lengths: Sequence[float] = LENGTHS) -> Find:
    """Each SAE's direction beside a baseline, by kind."""

    def find(results: Results) -> str:
        curves = results[experiment]
        if few := too_few(curves):
            return few
        name = late_l2(curves) if readout == "l2" else readout
        wanted = (curves, name, direction, other, len(lengths))
        found = [_by_kind(*wanted, _scaled(curves, length)) for length in lengths]
        return " ".join([*found, TOGETHER])

    return find


def _by_kind(curves: xr.Dataset, readout: str, direction: str, other: str, comparisons: int, length: float) -> str:
    values = curves[readout].sel(step=length, method="nearest")
    kinds = saes_by_kind(curves)
    level = 1 - 0.05 / (comparisons * sum(map(len, kinds.values())))
    parts = []
    for kind, saes in kinds.items():
        names = [f"{direction}:{sae}" for sae in saes]
        verbs = [verb(*difference(values, (name, other), level)) for name in names]
        counts = ", ".join(f"{verbs.count(one)} {one.removesuffix(' from')}" for one in dict.fromkeys(verbs))
        numbers = ", ".join(three_digits(float(values.sel(direction=name).mean())) for name in names)
        parts.append(f"{kind} {counts} ({numbers})")
    return (
        f"At length {float(values.step):.3g} (mean {values.attrs['long_name']}: "
        f"{means(curves, readout, BASELINES, length)}), {direction} beside {other}, sparse first: "
        f"{'; '.join(parts)}."
    )


def substitution_by_layer(results: Results) -> str:
    """In which layers SAE(x) is above the cov-random mixture, and how many times above the isotropic point."""
    layers = results.by_layer("layers")
    words, ratios = [], []
    for layer, curves in layers.items():
        if few := too_few(curves):
            return few
        (sae,) = saes_of(curves)
        values = curves.kl.isel(step=0)
        pair = f"sae-error:{sae}", f"epsilon-cov-random-mixture:{sae}"
        words.append(f"{layer} {verb(*difference(values, pair, 1 - 0.05 / len(layers)))}")
        own, isotropic = (
            float(values.sel(direction=f"{kind}:{sae}").mean()) for kind in ("sae-error", "epsilon-random")
        )
        ratios += [own / isotropic] if own >= 0 and isotropic > 0 else []
    times = (
        f"{min(ratios):.2f} to {max(ratios):.2f} times"
        if ratios
        else "not to be compared with (its KL is 0 or undefined)"
    )
    return (
        f"SAE(x) is {times} the isotropic point as far away; beside the "
        f"cov-random mixture as far away, by layer: {', '.join(words)}. {TOGETHER}"
    )


def substitution_by_sae(results: Results) -> str:
    """SAE(x) beside the cov-random mixture, of each SAE that was trained to reconstruct."""
    curves = results["reconstructions"]
    local = saes_by_kind(curves).get("local", [])
    wanted = [(f"sae-error:{sae}", f"epsilon-cov-random-mixture:{sae}") for sae in local]
    return compared(curves, "kl", wanted, [1.0])


def bars_at_lengths(readout: str) -> Find:
    """Features of one kind beside another, at the L0 where the paper compares them."""

    def find(results: Results) -> str:
        curves = results["features"]
        names = [f"sae-feature:{matched(curves, kind)}" for kind in saes_by_kind(curves)]
        wanted = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
        name = late_l2(curves) if readout == "l2" else readout
        wanted += [(one, "cov-random-mixture") for one in names]
        return compared(curves, name, wanted, [_scaled(curves, length) for length in LENGTHS])

    return find


def reconstruction_error(results: Results) -> str:
    """Distance and KL of each SAE."""
    curves = results["reconstructions"]
    parts = []
    for kind, saes in saes_by_kind(curves).items():
        one = [curves.sel(direction=f"sae-error:{sae}").isel(step=0) for sae in saes]
        numbers = ((float(curve.length.mean()), float(curve.kl.mean())) for curve in one)
        parts.append(f"{kind} " + ", ".join(f"{three_digits(far)} and {three_digits(kl)}" for far, kl in numbers))
    return f"Mean distance and mean KL of SAE(x), sparse first: {'; '.join(parts)}."


def shapes(results: Results) -> str:
    """Where single tokens' curves are halfway up."""
    table = shape_summary(shape_table(results["shapes"], "kl", fraction=0.5, statistics=("max_slope",)))
    rows = table[table.statistic == "relative_crossing_at"]
    parts = [
        f"{row.direction} {three_digits(row.median)} (mean {three_digits(row.mean)}, std {three_digits(row.std)})"
        for row in rows.itertuples()
    ]
    return f"Single tokens' curves are halfway up at a median length of {'; '.join(parts)}."


def _scaled(curves: xr.Dataset, length: float) -> float:
    return length / PAIR_DISTANCE * float(curves.attrs["pair_distance"])
