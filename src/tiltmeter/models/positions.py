"""Which positions are perturbed, which are read, and whether boundary tokens and massive activations count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from tiltmeter.analysis.massive import MASSIVE_RATIO
from tiltmeter.models.position_text import read_positions
from tiltmeter.runs.config import Configuration

InOrOut = Literal["in", "out"]


class Span(NamedTuple):
    """The positions from `first` up to, not including, `stop`."""

    first: int
    stop: int

    def cut(self, x: Tensor) -> Tensor:
        """`x[:, first:stop]`."""
        return x[:, self.first : self.stop]


class BosPolicy(Configuration):
    """Whether boundary positions are in or out of the statistics, the perturbation and the averages.

    A boundary position is position 0 of every sequence (an attention sink, whose activation can have many times the
    norm of any other) and every position whose token begins a document.
    """

    statistics: InOrOut = "out"
    """Of activations: mean, covariance, pool of real activations, pair distance."""
    perturbation: InOrOut = "in"
    """Whether boundary positions are perturbed."""
    average: InOrOut = "in"
    """Whether boundary positions count in a sequence's mean."""


class MassivePolicy(Configuration):
    """Whether massive activations are in or out of the statistics, the perturbation and the averages.

    Where boundary positions are out, they are out whatever this policy says.
    """

    statistics: InOrOut = "out"
    """Of activations: mean, covariance, pool of real activations, pair distance, latent statistics."""
    perturbation: InOrOut = "in"
    """Whether massive activations are perturbed."""
    average: InOrOut = "in"
    """Whether massive activations count in a sequence's mean."""
    ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = MASSIVE_RATIO
    """An activation is massive if its norm is above this multiple of the site's median norm."""

    def largest_counted(self, massive_above: float) -> float:
        """The largest norm that statistics count, where norms above `massive_above` are massive."""
        return massive_above if self.statistics == "out" else math.inf


@dataclass(frozen=True)
class Positions:
    """The positions that are perturbed and those that are read, for sequences of one length."""

    perturbed: tuple[int, ...]
    read: tuple[int, ...]

    @property
    def span(self) -> Span:
        """The positions a perturbed run must compute: from the first perturbed to the last read."""
        return Span(min(self.perturbed), max(self.read) + 1)


def parse_positions(text: str, length: int) -> Positions:
    """Parse positions in sequences of `length` tokens.

    `all`; `last`; `32` (that one); `32+16` (perturb 32, read 32 to 48); `3,7,9` (perturb and read these).

    Raises:
        TiltmeterError: the text is none of these, or a position is outside the sequence.
    """
    return Positions(*read_positions(text, length))


def boundary_mask(tokens: Int[Tensor, "batch position"], boundary: int | None) -> Bool[Tensor, "batch position"]:
    """True at boundary positions: position 0, and every token that begins a document."""
    mask = torch.zeros_like(tokens, dtype=torch.bool) if boundary is None else tokens == boundary
    mask = mask.clone()
    mask[:, 0] = True
    return mask


def allowed(mask: Bool[Tensor, "batch position"], policy: InOrOut) -> Bool[Tensor, "batch position"]:
    """The positions that count under a policy: all, or all but the boundary ones."""
    return torch.ones_like(mask) if policy == "in" else ~mask
