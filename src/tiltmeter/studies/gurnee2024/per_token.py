"""Values per token of this study's datasets, without the last token of a sequence, which has no loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from tiltmeter.perturb.names import DirectionName
from tiltmeter.studies.estimands import PerSequence, PerToken
from tiltmeter.studies.results import NotMeasured, Results


class Layer(NamedTuple):
    """What was measured at one layer: the sweep, and facts of the same tokens."""

    curves: xr.Dataset
    facts: xr.Dataset


def layers(results: Results) -> dict[int, Layer]:
    """Every layer that has both a sweep and facts of its tokens.

    Raises:
        NotMeasured: no layer has one of them.
    """
    sweeps, facts = results.by_layer("layers"), results.by_layer("tokens")
    return {layer: Layer(sweeps[layer], facts[layer]) for layer in sweeps if layer in facts}


def layer_of(results: Results, layer: int) -> Layer:
    """One layer.

    Raises:
        NotMeasured: it was not measured.
    """
    found = layers(results)
    if layer not in found:
        raise NotMeasured(f"Layer {layer} was not measured.")
    return found[layer]


def study_layer(results: Results) -> int:
    """The layer that corresponds to the paper's layer 6: the one at which many random points were drawn.

    Raises:
        NotMeasured: none were.
    """
    return int(str(results["draws"].attrs["site"]).split(".")[1])


def per_token(curves: xr.Dataset, kind: str, readout: str = "kl") -> PerToken:
    """A readout of an intervention, [sequence, position], without the last position of whole sequences.

    Raises:
        NotMeasured: this intervention was not measured.
    """
    names = [name for name in map(str, curves.direction.values) if DirectionName.parse(name).kind == kind]
    if not names:
        raise NotMeasured(f"The intervention {kind} was not measured at {curves.attrs['site']}.")
    values = curves[readout].sel(direction=names[0]).isel(step=0).transpose("sequence", "position").to_numpy()
    return values[:, :-1] if curves.attrs["positions"] == "all" else values


def fact(facts: xr.Dataset, name: str) -> PerToken:
    """A fact of each token, without the last position."""
    return facts[name].transpose("sequence", "position").to_numpy().astype(np.float64)[:, :-1]


def loss_increase(layer: Layer, kind: str) -> PerToken:
    """Next-token loss with an intervention minus the clean one, nats."""
    return per_token(layer.curves, kind, "loss") - fact(layer.facts, "loss")


def mean_of(values: PerToken) -> PerSequence:
    """Mean over the tokens of each sequence; NaN where none has a value."""
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0.0).sum(1)
    return np.divide(total, counted.sum(1), out=np.full(len(values), np.nan), where=counted.any(1))


def mean_kl(curves: xr.Dataset, kind: str) -> PerSequence:
    """Mean KL of an intervention over the tokens of each sequence."""
    return mean_of(per_token(curves, kind))
