"""What a clean forward pass leaves for the perturbed ones, among it the clean keys and values of earlier positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.differences.tape import Tape
from tiltmeter.models.positions import Span
from tiltmeter.models.sites import Site

Way = Literal["suffix", "layers", "model"]
"""How a perturbed run is made, fastest first; `model` is what the two others must equal."""

PERTURBED_RUNS: Mapping[Way, str] = {
    "suffix": "the layers after the site, from the first perturbed position, with the clean keys and values before it",
    "layers": "the layers after the site, at all positions",
    "model": "the whole model, with the activation at the site replaced: it does not run in parts",
}
"""What each way computes."""


@dataclass(frozen=True)
class LateActivations:
    """Activations after the site at the positions of the span, or their changes under a perturbation."""

    final: Float[Tensor, "*point batch span d_model"]
    """Hidden states after the final norm, the unembedding's input."""
    sites: dict[Site, Float[Tensor, "*point batch span d_site"]]

    def minus(self, clean: LateActivations) -> LateActivations:
        """The changes from a clean run: each activation minus its clean value."""
        return LateActivations(
            self.final - clean.final, {site: value - clean.sites[site] for site, value in self.sites.items()}
        )


@dataclass(frozen=True)
class CleanRun:
    """What one clean forward pass leaves for all perturbed ones."""

    tokens: Int[Tensor, "batch position"]
    site: Site
    span: Span
    """The positions that perturbed runs are asked for."""
    way: Way
    """How perturbed runs are made."""
    run: Span
    """The positions that perturbed runs compute: the span, and those that the way needs besides."""
    beyond: Float[Tensor, "batch after d_site"]
    """The activation at the site at the positions of `run` after the span; mostly none."""
    activation: Float[Tensor, "batch seen d_site"]
    """At the site, at every position up to the end of the span. `SplitModel.whole` adds the later ones."""
    entry: Float[Tensor, "batch run d_model"]
    """The residual stream that enters the first block to run again, at the positions of `run`."""
    prefix: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of the positions before the span, for each block that runs again."""
    late: LateActivations
    tape: Tape = field(default_factory=Tape)
    """Clean values that exact differences need as well; recorded once, by the clean pass or the first perturbed run."""

    @property
    def frame(self) -> Float[Tensor, "batch run d_site"]:
        """The activation at the site at the positions of `run`."""
        return self.run.cut(torch.cat([self.activation, self.beyond], 1) if self.beyond.shape[1] else self.activation)

    def widened(self, x: Tensor, around: Tensor | None = None) -> Tensor:
        """`x`, given at the positions of the span, at those of `run`: `around` (default zero) at the others."""
        if self.run == self.span:
            return x
        shape = (*x.shape[:-2], self.run.stop - self.run.first, x.shape[-1])
        wide = x.new_zeros(shape) if around is None else around.expand(shape).clone()
        wide[..., self.span.first - self.run.first : self.span.stop - self.run.first, :] = x
        return wide

    def narrowed(self, x: Tensor) -> Tensor:
        """`x`, given at the positions of `run`, at those of the span."""
        return x[..., self.span.first - self.run.first : self.span.stop - self.run.first, :]


def clean_prefix(cache: DynamicCache | None, first_block: int, span: Span) -> tuple[tuple[Tensor, Tensor], ...]:
    """The keys and values of the positions before the span, from `first_block` on.

    Raises:
        TiltmeterError: a block leaves something else, such as the state of a linear attention.
    """
    if cache is None:
        return ()
    layers = cache.layers[first_block:]
    if not all(isinstance(getattr(layer, "keys", None), Tensor) for layer in layers):
        raise TiltmeterError(
            "A block's cache holds no keys and values, so runs cannot begin inside a sequence; use --positions all."
        )
    return tuple((layer.keys[..., : span.first, :], layer.values[..., : span.first, :]) for layer in layers)


def repeated_cache(clean: CleanRun, copies: int) -> DynamicCache:
    """A KV cache that holds the clean prefix, repeated for each path point.

    Skipped blocks get an entry of the right length without storage: models ask the first layer how long the past is.
    """
    cache = DynamicCache()
    batch = copies * clean.tokens.shape[0]
    placeholder = clean.entry.new_zeros(1).expand(batch, 1, clean.run.first, 1)
    for layer in range(clean.site.boundary):
        cache.update(placeholder[..., :0, :], placeholder[..., :0, :], layer)
        cache.layers[layer].keys = cache.layers[layer].values = placeholder
    for layer, (keys, values) in enumerate(clean.prefix, start=clean.site.boundary):
        cache.update(keys.repeat(copies, 1, 1, 1), values.repeat(copies, 1, 1, 1), layer)
    return cache
