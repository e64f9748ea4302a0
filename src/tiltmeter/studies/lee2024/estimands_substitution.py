"""Estimands about replacing x by SAE(x), compared with other points at the same distance."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import Estimand, Region
from tiltmeter.analysis.resampling import OfMeans
from tiltmeter.studies.estimands import Estimands, PerSequence, of_columns, ratio, read
from tiltmeter.studies.lee2024.estimands import extremes
from tiltmeter.studies.lee2024.estimands_saes import END_TO_END, matched, of_kind
from tiltmeter.studies.margins import LESS, MORE, SIMILAR
from tiltmeter.studies.results import NotMeasured, Results, saes_by_kind, saes_of


def in_each_layer(one: str, other: str, region: Region) -> Estimands:
    """KL of one substitution ÷ that of another, in each layer."""

    def estimands(results: Results) -> list[Estimand]:
        return [
            ratio(f"layer {layer}: KL of {one} ÷ {other}", *_in_layer(curves, one, other), region)
            for layer, curves in results.by_layer("layers").items()
        ]

    return estimands


def _in_layer(curves: xr.Dataset, one: str, other: str) -> tuple[PerSequence, PerSequence]:
    (sae,) = saes_of(curves)
    return _substituted(curves, sae, one, other)


def _substituted(curves: xr.Dataset, sae: str, one: str, other: str) -> tuple[PerSequence, PerSequence]:
    """KL of two substitutions by an SAE."""
    return read(curves, "kl", f"{one}:{sae}", 1.0), read(curves, "kl", f"{other}:{sae}", 1.0)


def nearer_to_mixtures(results: Results) -> list[Estimand]:
    """How many times farther, as a ratio, the KL of SAE(x) is from the isotropic point's than from the mixture's."""
    names = ("sae-error", "epsilon-random", "epsilon-cov-random-mixture")
    found = []
    for layer, curves in results.by_layer("layers").items():
        (sae,) = saes_of(curves)
        columns = [read(curves, "kl", f"{name}:{sae}", 1.0) for name in names]
        label = f"layer {layer}: KL of SAE(x) ÷ isotropic, or its inverse, over the same for the cov-random mixture"
        found.append(of_columns(label, columns, _NEARER, MORE, "ratio"))
    return found


def _times(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The larger ÷ the smaller."""
    return np.maximum(one / other, other / one)


_NEARER = OfMeans(lambda m: _times(m[..., 0], m[..., 1]) / _times(m[..., 0], m[..., 2]))


def some_above_some_below(results: Results) -> list[Estimand]:
    """SAE(x) ÷ cov-random mixture: the largest and the smallest ratio of any layer."""
    layers = results.by_layer("layers")
    if len(layers) < 2:
        raise NotMeasured("Only one layer has an SAE that was trained to reconstruct.")
    pairs = {
        f"layer {layer}": _in_layer(curves, "sae-error", "epsilon-cov-random-mixture")
        for layer, curves in layers.items()
    }
    return extremes("KL of SAE(x) ÷ cov-random mixture", pairs)


def at_study_layer(results: Results) -> list[Estimand]:
    """SAE(x) ÷ cov-random mixture, of each SAE at the study's layer that was trained to reconstruct.

    Raises:
        NotMeasured: only one SAE was given, and the claim is about several L0.
    """
    curves = results["reconstructions"]
    if len(of_kind(curves, "local")) == 1:
        raise NotMeasured("The claim is about SAEs of several L0; only one was given.")
    return [
        ratio(
            f"{sae}: KL of SAE(x) ÷ cov-random mixture",
            *_substituted(curves, sae, "sae-error", "epsilon-cov-random-mixture"),
            SIMILAR,
        )
        for sae in of_kind(curves, "local")
    ]


def across_saes(pairs: tuple[tuple[str, str], ...], region: Region) -> Estimands:
    """KL of one substitution ÷ that of another, of each SAE at the study's layer that was trained to reconstruct."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results["reconstructions"]
        return [
            ratio(f"{sae}: KL of {one} ÷ {other}", *_substituted(curves, sae, one, other), region)
            for sae in of_kind(curves, "local", 2)
            for one, other in pairs
        ]

    return estimands


def farther_with_lower_kl(results: Results) -> list[Estimand]:
    """Distance and KL of reconstructions, end-to-end ÷ local, at the L0 where the paper compares them."""
    curves = results["reconstructions"]
    base = matched(curves, "local")
    found = []
    for kind in END_TO_END:
        if kind in saes_by_kind(curves):
            name = matched(curves, kind)
            for readout, label, region in (("length", "distance ε", MORE), ("kl", "KL", LESS)):
                values = [read(curves, readout, f"sae-error:{sae}", 1.0) for sae in (name, base)]
                found.append(ratio(f"{label} of SAE(x): {name} ÷ {base}", values[0], values[1], region))
    if not found:
        raise NotMeasured("No end-to-end SAE was given.")
    return found
