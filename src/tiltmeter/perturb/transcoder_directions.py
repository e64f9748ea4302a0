"""The direction that needs a transcoder: its error at the output of its MLP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltmeter.perturb.directions import Direction, difference
from tiltmeter.perturb.sources import Context
from tiltmeter.saes.at_site import TranscoderAtSite


@dataclass(frozen=True)
class TranscoderError:
    """T(u) - x: from the MLP's output x toward the transcoder's, u being what the MLP reads on the clean run."""

    transcoder: TranscoderAtSite

    def vector(self, context: Context) -> Tensor:
        """Return the transcoder's output minus x."""
        assert context.tokens is not None, "the context is of no run of a model"
        u = self.transcoder.read(context.tokens)[:, context.address.positions]
        y = torch.cat([part for _, _, part in self.transcoder.outputs(u)]).reshape(context.x.shape)
        return difference(y.to(context.x), context.x)


@dataclass(frozen=True)
class TranscoderDirection:
    """A registry entry for a direction that needs a transcoder of an MLP. Its full name is `KIND:NAME`."""

    build: Callable[[TranscoderAtSite], Direction]
    meaning: str
    """The vector before it is normalised."""
    is_random: bool = False


TRANSCODER_DIRECTIONS: Mapping[str, TranscoderDirection] = {
    "transcoder-error": TranscoderDirection(
        TranscoderError, "T(u) - x, at an MLP's output x; T is a transcoder, u what the MLP reads on the clean run"
    )
}
"""The registry entries that need a transcoder."""
