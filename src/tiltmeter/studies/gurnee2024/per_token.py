"""Reading the datasets of this study: per token, as the paper has them, without the last, which has no loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from tiltmeter.studies.estimands import PerSequence, PerToken
from tiltmeter.studies.results import NotMeasured, Results, saes_of


class Layer(NamedTuple):
    """What was measured at one layer: the sweep, and facts of the same tokens."""

    curves: xr.Dataset
    facts: xr.Dataset


def layers(results: Results) -> dict[int, Layer]:
    """Every layer, with facts of its tokens.

    Raises:
        NotMeasured: at none.
    """
    sweeps, facts = results.by_layer("layers"), results.by_layer("tokens")
    return {layer: Layer(sweeps[layer], facts[layer]) for layer in sweeps if layer in facts}


def the_sae(curves: xr.Dataset) -> str:
    """The label of a sweep's only SAE."""
    (label,) = saes_of(curves)
    return label


def study_layer(results: Results) -> int:
    """The layer that many random points were drawn at.

    Raises:
        NotMeasured: none was.
    """
    return int(str(results["draws"].attrs["site"]).split(".")[1])


def per_token(curves: xr.Dataset, kind: str, readout: str = "kl") -> PerToken:
    """A readout of an intervention, [sequence, position], without the last position of whole sequences.

    Raises:
        NotMeasured: this intervention was not measured.
    """
    names = [name for name in map(str, curves.direction.values) if name.partition(":")[0] == kind]
    if not names:
        raise NotMeasured(f"The intervention {kind} was not measured at {curves.attrs['site']}.")
    values = curves[readout].sel(direction=names[0]).isel(step=0).transpose("sequence", "position").to_numpy()
    return values[:, :-1] if curves.attrs["positions"] == "all" else values


def gap(curves: xr.Dataset) -> PerToken:
    """KL of SAE(x) less that of the random point as far away."""
    return per_token(curves, "sae-error") - per_token(curves, "epsilon-random")


def cosine(curves: xr.Dataset) -> PerToken:
    """Cosine of x and SAE(x)."""
    return per_token(curves, "sae-error", f"cos@{curves.attrs['site']}")


def fact(facts: xr.Dataset, name: str) -> PerToken:
    """A fact of each token, without the last position."""
    return facts[name].transpose("sequence", "position").to_numpy().astype(np.float64)[:, :-1]


def loss_increase(layer: Layer, kind: str) -> PerToken:
    """Loss of an intervention less the clean one."""
    return per_token(layer.curves, kind, "loss") - fact(layer.facts, "loss")


def positions(values: PerToken) -> PerToken:
    """The position of each token."""
    return np.broadcast_to(np.arange(values.shape[1], dtype=np.float64), values.shape)


PREDICTORS: dict[str, Callable[[Layer], PerToken]] = {
    "cosine": lambda layer: cosine(layer.curves),
    "L0": lambda layer: fact(layer.facts, "l0"),
    "position": lambda layer: positions(fact(layer.facts, "l0")),
    "log frequency": lambda layer: np.log(fact(layer.facts, "frequency")),
}
"""What might predict where the gap is large."""


def mean_of(values: PerToken) -> PerSequence:
    """Mean over the tokens of each sequence; NaN where none has a value."""
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0.0).sum(1)
    return np.divide(total, counted.sum(1), out=np.full(len(values), np.nan), where=counted.any(1))


def mean_kl(curves: xr.Dataset, kind: str) -> PerSequence:
    """Mean KL of an intervention over the tokens of each sequence."""
    return mean_of(per_token(curves, kind))


class Drawn(NamedTuple):
    """Many random points for one token of each sequence."""

    sae: PerSequence
    """KL of SAE(x)."""
    random: PerToken
    """KL of each random point, [sequence, draw]."""

    @property
    def deviations(self) -> PerSequence:
        """How many standard deviations of the random points SAE(x) is above their mean."""
        return (self.sae - self.random.mean(1)) / self.random.std(1, ddof=1)


def drawn(results: Results) -> Drawn:
    """Both at the token where many points were drawn.

    Raises:
        NotMeasured: they were not.
    """
    curves = results["draws"].isel(step=0)
    names = [str(name) for name in curves.direction.values]
    random = [name for name in names if name.startswith("epsilon-random")]
    sae = [name for name in names if name.startswith("sae-error")]
    values = curves.kl.transpose("sequence", "direction")
    return Drawn(values.sel(direction=sae[0]).to_numpy(), values.sel(direction=random).to_numpy())
