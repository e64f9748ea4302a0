"""How an SAE normalises each token's activation before encoding, and restores the reconstruction after decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor


class Normalisation(NamedTuple):
    """A normalisation of each token, and its inverse."""

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor, Tensor], Tensor]
    """From a reconstruction, and the activation whose mean and scale are restored."""


def _standardised(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)  # undoing it has no ε


NORMALISATIONS: Mapping[str, Normalisation | None] = {
    "none": None,
    "layer_norm": Normalisation(
        _standardised, lambda y, like: y * like.std(-1, keepdim=True) + like.mean(-1, keepdim=True)
    ),
    "constant_norm_rescale": Normalisation(
        lambda x: x * (math.sqrt(x.shape[-1]) / x.norm(dim=-1, keepdim=True)),
        lambda y, like: y * (like.norm(dim=-1, keepdim=True) / math.sqrt(like.shape[-1])),
    ),
}
"""By the names of SAELens's `normalize_activations`. `layer_norm` is also that of OpenAI's SAEs (Gao et al. 2024).

Others are constant factors, which are folded into the weights.
"""
