"""The KL gap of a token, KL of SAE(x) minus that of an ε-random point: how it varies, and what it correlates with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from tiltmeter.analysis.correlations import Sums, matrix, sums_of
from tiltmeter.analysis.estimates import Estimand, Region
from tiltmeter.studies.estimands import Estimands, PerSequence, PerToken, correlation, fraction
from tiltmeter.studies.gurnee2024.per_token import Layer, fact, layer_of, per_token, study_layer
from tiltmeter.studies.margins import CORRELATED, FIRST, MANY
from tiltmeter.studies.results import NotMeasured, Results

TYPICAL, FAR = 2.0, 5.0
"""In standard deviations of the random points: SAE(x) is close to their mean, and SAE(x) is very far above it."""


def gap(curves: xr.Dataset) -> PerToken:
    """KL of SAE(x) minus KL of a random point at the same distance from x, nats."""
    return per_token(curves, "sae-error") - per_token(curves, "epsilon-random")


def gap_by_layer(results: Results) -> dict[int, PerToken]:
    """The gap of every token, by layer, over the sequences that all layers have.

    Raises:
        NotMeasured: no layer was measured.
    """
    found = {layer: gap(curves) for layer, curves in results.by_layer("layers").items()}
    n = min(map(len, found.values()))
    return {layer: values[:n] for layer, values in found.items()}


def _cosine(layer: Layer) -> PerToken:
    """Cosine similarity of x and SAE(x)."""
    return per_token(layer.curves, "sae-error", f"cos@{layer.curves.attrs['site']}")


def _position(layer: Layer) -> PerToken:
    shape = fact(layer.facts, "l0").shape
    return np.broadcast_to(np.arange(shape[1], dtype=np.float64), shape)


PREDICTORS: dict[str, Callable[[Layer], PerToken]] = {
    "cosine": _cosine,
    "L0": lambda layer: fact(layer.facts, "l0"),
    "position": _position,
    "log frequency": lambda layer: np.log(fact(layer.facts, "frequency")),
}
"""What might predict where the gap is large."""


class RandomDraws(NamedTuple):
    """Many random points for one token of each sequence."""

    sae: PerSequence
    """KL of SAE(x)."""
    random: PerToken
    """KL of each random point, [sequence, draw]."""

    @property
    def deviations(self) -> PerSequence:
        """How many standard deviations of the random points SAE(x) lies above their mean."""
        return (self.sae - self.random.mean(1)) / self.random.std(1, ddof=1)


def drawn(results: Results) -> RandomDraws:
    """KL of SAE(x) and of the random points at the token at which many were drawn.

    Raises:
        NotMeasured: none were.
    """
    curves = results["draws"].isel(step=0)
    names = [str(name) for name in curves.direction.values]
    random = [name for name in names if name.startswith("epsilon-random")]
    sae = [name for name in names if name.startswith("sae-error")]
    values = curves.kl.transpose("sequence", "direction")
    return RandomDraws(values.sel(direction=sae[0]).to_numpy(), values.sel(direction=random).to_numpy())


def typical_and_far(results: Results) -> list[Estimand]:
    """Fractions of tokens whose SAE(x) is close to the mean of its random points, and very far above it."""
    deviations = drawn(results).deviations
    known = np.where(np.isnan(deviations), np.nan, 1.0)
    return [
        fraction(
            f"fraction of tokens with SAE(x) within {TYPICAL:g} standard deviations",
            known * (np.abs(deviations) <= TYPICAL),
            MANY,
        ),
        fraction(f"fraction of tokens with SAE(x) more than {FAR:g} above", known * (deviations > FAR), MANY),
    ]


def gap_with(predictor: str, region: Region) -> Estimands:
    """Pearson's correlation over tokens of the gap with a predictor, at the study's layer."""

    def estimands(results: Results) -> list[Estimand]:
        layer = study_layer(results)
        one = layer_of(results, layer)
        label = f"layer {layer}: correlation of the KL gap with {predictor}"
        return [correlation(label, gap(one.curves), PREDICTORS[predictor](one), region)]

    return estimands


def absolute_gap_with(predictor: str, region: Region) -> Estimands:
    """Absolute value of the correlation over tokens of the gap with a predictor, at the study's layer."""

    def estimands(results: Results) -> list[Estimand]:
        (signed,) = gap_with(predictor, region)(results)
        label = signed.label.replace("correlation", "absolute correlation")
        return [signed._replace(label=label, statistic=lambda rows: abs(signed.statistic(rows)))]

    return estimands


def l0_with_cosine(results: Results) -> list[Estimand]:
    """Absolute value of the correlation over tokens of L0 with the cosine of x and SAE(x), at the study's layer."""
    layer = study_layer(results)
    one = layer_of(results, layer)
    found = correlation("", PREDICTORS["L0"](one), PREDICTORS["cosine"](one), CORRELATED)
    label = f"layer {layer}: absolute correlation of L0 with the cosine of x and SAE(x)"
    return [found._replace(label=label, statistic=lambda rows: abs(found.statistic(rows)))]


def other_layers_first(results: Results) -> list[Estimand]:
    """The largest correlation of the gap with that of another layer, minus the largest with any predictor (absolute).

    A predictor that does not vary, such as the L0 of a top-k SAE, has no correlation and is left out.
    """
    layer, found = study_layer(results), gap_by_layer(results)
    if layer not in found or len(found) < 2:
        raise NotMeasured("The gap was not measured at the study's layer and at another.")
    one = layer_of(results, layer)
    n = len(found[layer])
    others = [values for at, values in found.items() if at != layer]
    columns = [found[layer], *others, *(of(one)[:n] for of in PREDICTORS.values())]

    def lead(sums: Sums) -> float:
        with_gap = matrix(sums)[0, 1:]
        return float(with_gap[: len(others)].max() - np.nanmax(np.abs(with_gap[len(others) :])))

    names = ", ".join(PREDICTORS)
    label = f"layer {layer}: largest correlation of the gap with another layer's - largest with {names}"
    return [Estimand(label, sums_of(columns), lead, FIRST)]
