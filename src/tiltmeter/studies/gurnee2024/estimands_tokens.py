"""How the gap between SAE(x) and a random point varies from token to token, and what goes with it."""

from __future__ import annotations

import math

import numpy as np

from tiltmeter.analysis.correlations import Sums, matrix, sums_of
from tiltmeter.analysis.estimates import ABOVE_ZERO, Estimand, Region
from tiltmeter.studies.estimands import Quantities, correlation, fraction
from tiltmeter.studies.gurnee2024.per_token import PREDICTORS, Layer, drawn, gap, layers, study_layer
from tiltmeter.studies.results import NotMeasured, Results

TYPICAL, FAR = 2.0, 5.0
"""Standard deviations of random points: around their mean, and very far above it."""

MANY = Region(0.1, math.inf)
"""At least a tenth of the tokens."""


def typical_and_far(results: Results) -> list[Estimand]:
    """Parts of the tokens whose SAE(x) is around the mean of its random points, and very far above it."""
    deviations = drawn(results).deviations
    known = np.where(np.isnan(deviations), np.nan, 1.0)
    return [
        fraction(
            f"part of tokens with SAE(x) within {TYPICAL:g} standard deviations",
            known * (np.abs(deviations) <= TYPICAL),
            MANY,
        ),
        fraction(f"part of tokens with SAE(x) more than {FAR:g} above", known * (deviations > FAR), MANY),
    ]


def gap_with(predictor: str, region: Region) -> Quantities:
    """Correlation over tokens of the gap with something, at the study's layer."""

    def estimands(results: Results) -> list[Estimand]:
        layer = study_layer(results)
        one = layer_of(results, layer)
        what = f"layer {layer}: correlation of the KL gap with {predictor}"
        return [correlation(what, gap(one.curves), PREDICTORS[predictor](one), region)]

    return estimands


def gap_goes_with(predictor: str, region: Region) -> Quantities:
    """Size of the correlation over tokens of the gap with something, at the study's layer, whichever way it goes."""

    def estimands(results: Results) -> list[Estimand]:
        (signed,) = gap_with(predictor, region)(results)
        what = signed.what.replace("correlation", "size of the correlation")
        return [signed._replace(what=what, statistic=lambda rows: abs(signed.statistic(rows)))]

    return estimands


def layer_of(results: Results, layer: int) -> Layer:
    """One layer.

    Raises:
        NotMeasured: it was not measured.
    """
    found = layers(results)
    if layer not in found:
        raise NotMeasured(f"Layer {layer} was not measured.")
    return found[layer]


def gaps(results: Results) -> dict[int, np.ndarray]:
    """The gap of every token, by layer, over the sequences that all layers have."""
    found = {layer: gap(curves) for layer, curves in results.by_layer("layers").items()}
    n = min(map(len, found.values()))
    return {layer: values[:n] for layer, values in found.items()}


def other_layers_first(results: Results) -> list[Estimand]:
    """The strongest correlation of the gap with that of another layer, less the strongest with anything else.

    What does not vary, as the number of active latents of a top-k SAE, has no correlation and is left out.
    """
    layer, found = study_layer(results), gaps(results)
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
    what = f"layer {layer}: largest correlation of the gap with another layer's - largest with {names}"
    return [Estimand(what, sums_of(columns), lead, ABOVE_ZERO)]
