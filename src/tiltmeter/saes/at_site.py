"""An SAE at a site: its output where activations are measured, and which latents a sequence makes fire.

In a centred stream an SAE's output is centred too: a LayerNorm model cannot see its mean over d_model, and a length
must count only what the model can feel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.saes.sae import SAE

AT_ONCE = 2**22
"""Numbers held at once for the latents of many tokens: with 2,048 latents, those of 2,048 tokens. Larger pieces, 32 MB
and more, are given back to the system after each use, and their pages faulted in again."""


@dataclass(frozen=True)
class AtSite:
    """An SAE, and how activations are measured at the site where it is used."""

    sae: SAE
    site: Site
    centre: Callable[[Tensor], Tensor]
    """Takes out what the model cannot see at the site: `SplitModel.centre`."""

    @property
    def name(self) -> str:
        """What the user called the SAE."""
        return self.sae.about.name

    @property
    def size(self) -> int:
        """How many latents it has."""
        return len(self.sae.decoder)

    def in_float64(self) -> AtSite:
        """The same SAE in double precision."""
        return replace(self, sae=self.sae.to(self.sae.decoder.device, torch.float64))

    def check_width(self, width: int) -> None:
        """Refuse an SAE of another width than the site's.

        Raises:
            TiltmeterError: they differ.
        """
        if (own := self.sae.decoder.shape[1]) != width:
            raise TiltmeterError(
                f"The SAE {self.name} has width {own}, but activations at {self.site.name} have width {width}; give "
                "an SAE of this model and site."
            )

    @torch.no_grad()
    def pieces(self, x: Float[Tensor, "token d_site"]) -> Iterator[tuple[slice, Float[Tensor, "piece latent"]]]:
        """Which tokens, and their latents, of a few tokens after the other: all latents at once may be too many."""
        step = max(1, AT_ONCE // self.size)
        for begin in range(0, len(x), step):
            part = slice(begin, begin + step)
            yield part, self.sae.encode(x[part])

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token d_site"]:
        """SAE(x), as measured."""
        flat = x.flatten(0, -2)
        parts = [self.decode(latents, flat[part]) for part, latents in self.pieces(flat)]
        return torch.cat(parts).reshape(x.shape) if parts else x

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"]
    ) -> Float[Tensor, "*token d_site"]:
        """The activation that latents stand for, as measured, in `like`'s type."""
        return self.centre(self.sae.decode(latents, like=like).to(like))

    @torch.no_grad()
    def rows(self, latents: Int[Tensor, "*token"]) -> Float[Tensor, "*token d_site"]:
        """Decoder rows of these latents, as measured, as long as the SAE has them."""
        return self.centre(self.sae.decoder[latents.to(self.sae.decoder.device)])

    @torch.no_grad()
    def active(
        self, whole: Float[Tensor, "batch position d_site"], counted: Bool[Tensor, "batch position"]
    ) -> Bool[Tensor, "batch latent"]:
        """The latents that fire (f > 0) at a counted position of each sequence."""
        found = torch.zeros(len(whole), self.size, dtype=torch.bool, device=self.sae.decoder.device)
        owner = counted.nonzero()[:, 0]
        for part, latents in self.pieces(whole[counted]):
            mark(found, owner[part], latents)
        return found


def mark(
    found: Bool[Tensor, "batch latent"], owner: Int[Tensor, "token"], latents: Float[Tensor, "token latent"]
) -> None:
    """Note in `found`, which is changed, what fires at tokens of the sequences `owner`."""
    token, latent = (latents > 0).nonzero(as_tuple=True)
    found[owner.to(token.device)[token], latent] = True
