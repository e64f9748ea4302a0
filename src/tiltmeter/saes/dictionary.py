"""Dictionaries of which only the decoder is used, since their latents cannot be computed from activations at one site.

A transcoder reads another activation than it writes, a crosscoder reads several, and some autoencoders have latents
that are negative or depend on earlier tokens. Their decoder rows are directions all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.sae import SAE, About


@dataclass(frozen=True)
class Dictionary:
    """Decoder rows at one site."""

    about: About
    """Its metadata; `hook_name` is the site that the decoder writes to."""
    decoder: Float[Tensor, "latent d_site"]
    """Decoder rows, one per latent, at their own length."""
    what: str
    """What it is, as the end of a sentence: "a transcoder, which reads A and writes B"."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Dictionary:
        """A copy with its rows on this device and of this type."""
        return replace(self, decoder=self.decoder.to(device, dtype))


AnySAE = TypeVar("AnySAE", bound=SAE)

Loaded = SAE | Dictionary
"""What the files of a sparse dictionary hold."""


def only_saes(loaded: AnySAE | Dictionary) -> AnySAE:
    """The argument, if it is an SAE.

    Raises:
        TiltmeterError: it is a dictionary.
    """
    if isinstance(loaded, Dictionary):
        raise TiltmeterError(
            f"{loaded.about.name} is {loaded.what}, so it has no encoder and no reconstruction here; only its decoder "
            "rows are used: give it to a sweep along sae-feature or minus-sae-feature, or to tiltmeter.load_dictionary."
        )
    return loaded
