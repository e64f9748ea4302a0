"""Activations produced by an SAE: reconstructions, and syntheses from the latents of x."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.sources import Context, Source
from tiltmeter.runs.rng import uniform
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.latent_statistics import SAEWithStatistics
from tiltmeter.saes.synthetic import active_ids, baseline, structured


@dataclass(frozen=True)
class CleanActivation:
    """The activation of the token itself."""

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch span d_site"]:
        """Return x, of which there is only one sample.

        Raises:
            TiltmeterError: more than one sample was requested.
        """
        _check_one(count, "An activation")
        return context.x[None]


@dataclass(frozen=True)
class Reconstruction:
    """An SAE's reconstructions of a source's activations."""

    sae: SAEAtSite
    source: Source

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch span d_site"]:
        """Return SAE(sample) in the measured stream."""
        return self.sae.reconstruct(self.source.sample(context, count).to(context.x))


@dataclass(frozen=True)
class SyntheticBaseline:
    """Decoded latents of x, each replaced by one that fires as often (Giglemiani et al. 2024)."""

    sae: SAEWithStatistics

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch span d_site"]:
        """Return synthetic activations in the measured stream.

        Raises:
            TiltmeterError: a token has so many active latents that there are no others for them.
        """
        at, x = self.sae.at, context.x.flatten(0, 1)
        parts = [
            torch.stack([self._synthesis(context, part, f, f"sample{i}") for i in range(count)])
            for part, f in at.pieces(x)
        ]
        return torch.cat(parts, dim=1).unflatten(1, context.x.shape[:2])

    def _synthesis(self, context: Context, part: slice, latents: Tensor, stream: str) -> Tensor:
        turns = max(1, active_ids(latents).shape[1])
        chance = uniform(context.address, stream, turns).flatten(0, 1)[part]
        made = baseline(latents, self.sae.latents.frequency, chance, self.sae.synthesis.baseline)
        return self.sae.at.decode(made, context.x.flatten(0, 1)[part])


@dataclass(frozen=True)
class SyntheticStructured:
    """Decoded latents of x, replaced by others with the same cosines to the strongest (Giglemiani et al. 2024).

    Cosines are between decoder rows as the SAE has them, as published, or in the measured stream (`options.rows`).
    """

    sae: SAEWithStatistics

    def sample(self, context: Context, count: int) -> Float[Tensor, "count batch span d_site"]:
        """Return synthetic activations in the measured stream.

        Raises:
            TiltmeterError: a token has so many active latents that there are no others for them; more than one was to
                be drawn: nothing in it is random.
        """
        _check_one(count, "The structured synthesis of an activation")
        at, x = self.sae.at, context.x.flatten(0, 1)
        frequency, options = self.sae.latents.frequency, self.sae.synthesis.structured
        rows = at.sae.decoder.detach() if options.rows == "raw" else at.rows(torch.arange(at.size))
        made = [at.decode(structured(latents, frequency, rows, options), x[part]) for part, latents in at.pieces(x)]
        return torch.cat(made).reshape(context.x.shape)[None]


def _check_one(count: int, what: str) -> None:
    if count != 1:
        raise TiltmeterError(f"{what} is a single vector, but {count} different samples were requested; request one.")
