"""An SAE applied at a site: reconstructions in the measured stream, and the latents that fire on a sequence.

`RowsAtSite` has decoder rows alone. In a centred stream the SAE's output is centred too. A LayerNorm model is blind to
the mean over d_model, so that mean must not count toward the length of a perturbation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.mlp_input import MLPInput
from tiltmeter.models.sites import Site
from tiltmeter.saes.dictionary import Dictionary, Loaded
from tiltmeter.saes.sae import SAE
from tiltmeter.saes.transcoder import Transcoder

CHUNK_ELEMENTS = 2**22
"""Latent values computed at once, e.g. 2,048 tokens of 2,048 latents. The allocator returns blocks of 32 MB and more to
the system after each use, and faulting their pages in again costs more than smaller chunks do."""


ROWS_AT_ONCE = 4096
"""Decoder rows whose lengths are computed at once."""

ROUNDING = 1e-5
"""A centred row shorter than this fraction of the row is rounding error: the model is blind to the row."""


@dataclass(frozen=True)
class RowsAtSite:
    """The decoder rows of an SAE or another dictionary, their site, and how activations are centred there."""

    sae: Loaded
    site: Site
    centre: Callable[[Tensor], Tensor]
    """Removes what the model is blind to at the site: in a centred stream, the mean over d_model."""

    @property
    def name(self) -> str:
        """The name under which the user loaded the SAE."""
        return self.sae.about.name

    @property
    def size(self) -> int:
        """Number of latents."""
        return len(self.sae.decoder)

    def check_width(self, width: int) -> None:
        """Check that the SAE has the width of the site.

        Raises:
            TiltmeterError: the widths differ.
        """
        if (own := self.sae.decoder.shape[1]) != width:
            raise TiltmeterError(
                f"The SAE {self.name} has width {own}, but activations at {self.site.name} have width {width}; give "
                "an SAE of this model and site."
            )

    @torch.no_grad()
    def rows(self, latents: Int[Tensor, "*token"]) -> Float[Tensor, "*token d_site"]:
        """Return the decoder rows of these latents, centred like the activations of the site and not normalised."""
        return self.centre(self.sae.decoder[latents.to(self.sae.decoder.device)])

    @cached_property
    def not_zero(self) -> Int64[Tensor, "kept"]:
        """The latents whose decoder row, centred, has a length."""
        kept = [
            self.centre(part).norm(dim=-1) > ROUNDING * part.norm(dim=-1)
            for part in self.sae.decoder.split(ROWS_AT_ONCE)
        ]
        return torch.cat(kept).nonzero()[:, 0].cpu()


@dataclass(frozen=True)
class DictionaryAtSite(RowsAtSite):
    """A dictionary of which only the decoder rows are used, and the site that it writes to."""

    sae: Dictionary

    @property
    def what(self) -> str:
        """What it is, as the end of a sentence."""
        return self.sae.what


@dataclass(frozen=True)
class TranscoderAtSite(DictionaryAtSite):
    """A transcoder at the output of its MLP."""

    sae: Transcoder
    inputs: Callable[[Tensor], Mapping[MLPInput, Tensor]]
    """All that the MLP may be said to read [batch, position, d], on a clean run of token ids [batch, position]. The
    stream is centred if the transcoder's files say so."""

    def read(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position d_in"]:
        """What the transcoder reads, on a clean run.

        Raises:
            TiltmeterError: the MLP of this model is not found, has no such input, or one of another width.
        """
        found = self.possible(tokens)
        if self.sae.reads not in found:
            has = ", ".join(f"{key} of width {u.shape[-1]}" for key, u in self.inputs(tokens).items())
            raise TiltmeterError(
                f"The transcoder {self.name} reads {self.sae.reads} of width {len(self.sae.W_enc)}, but the MLP of "
                f"block {self.site.layer} has {has}; give a transcoder of this model."
            )
        return found[self.sae.reads]

    def possible(self, tokens: Int[Tensor, "batch position"]) -> dict[MLPInput, Tensor]:
        """The inputs of the MLP that have the transcoder's width."""
        return {key: u for key, u in self.inputs(tokens).items() if u.shape[-1] == len(self.sae.W_enc)}

    @torch.no_grad()
    def outputs(self, u: Float[Tensor, "*token d_in"]) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the slice of flattened tokens, their latents, and T(u), centred like the activations of the site."""
        flat, step = u.flatten(0, -2), max(1, CHUNK_ELEMENTS // self.size)
        for begin in range(0, len(flat), step):
            part = slice(begin, begin + step)
            latents = self.sae.encode(flat[part])
            yield part, latents, self.centre(self.sae.decode(latents, flat[part]))


@dataclass(frozen=True)
class SAEAtSite(RowsAtSite):
    """An SAE, the site it is applied at, and how activations are centred there."""

    sae: SAE

    @property
    def has_rows(self) -> bool:
        """Whether the decoder's rows are known. Of an object with `encode` and `decode` alone they are not."""
        return not bool(self.sae.decoder[:1, :1].isnan().any())

    def in_float64(self) -> SAEAtSite:
        """Return a copy of the SAE in double precision."""
        return replace(self, sae=self.sae.to(self.sae.decoder.device, torch.float64))

    @torch.no_grad()
    def pieces(self, x: Float[Tensor, "token d_site"]) -> Iterator[tuple[slice, Float[Tensor, "piece latent"]]]:
        """Yield latents with their slice of tokens, chunk by chunk, as all latents may not fit into memory."""
        step = max(1, CHUNK_ELEMENTS // self.size)
        for begin in range(0, len(x), step):
            part = slice(begin, begin + step)
            yield part, self.sae.encode(x[part])

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token d_site"]:
        """Return SAE(x), centred like the activations of the site."""
        flat = x.flatten(0, -2)
        parts = [self.decode(latents, flat[part]) for part, latents in self.pieces(flat)]
        return torch.cat(parts).reshape(x.shape) if parts else x

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"]
    ) -> Float[Tensor, "*token d_site"]:
        """Decode latents to an activation, centred like those of the site, in the dtype of `like`."""
        return self.centre(self.sae.decode(latents, like=like).to(like))

    @torch.no_grad()
    def active(
        self, whole: Float[Tensor, "batch position d_site"], counted: Bool[Tensor, "batch position"]
    ) -> Bool[Tensor, "batch latent"]:
        """Find the latents that fire (f > 0) at any counted position of each sequence."""
        found = torch.zeros(len(whole), self.size, dtype=torch.bool, device=self.sae.decoder.device)
        owner = counted.nonzero()[:, 0]
        for part, latents in self.pieces(whole[counted]):
            mark(found, owner[part], latents)
        return found


def mark(
    found: Bool[Tensor, "batch latent"], owner: Int[Tensor, "token"], latents: Float[Tensor, "token latent"]
) -> None:
    """Mark in `found`, in place, every latent that fires at a token. `owner` is the sequence of each token."""
    token, latent = (latents > 0).nonzero(as_tuple=True)
    found[owner.to(token.device)[token], latent] = True
