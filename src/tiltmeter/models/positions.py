"""Which positions are perturbed, which are read, and what becomes of the boundary token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.config import Configuration

InOrOut = Literal["in", "out"]


class Span(NamedTuple):
    """Positions `first` to `stop - 1`."""

    first: int
    stop: int

    def cut(self, x: Tensor) -> Tensor:
        """`x[:, first:stop]`."""
        return x[:, self.first : self.stop]


class BosPolicy(Configuration):
    """Whether boundary positions take part in three things.

    A boundary position is position 0 of every sequence (models park attention there, and its activation can be many
    times as long as any other) and every position whose token begins a document.
    """

    statistics: InOrOut = "out"
    """In the mean, the covariance, the pool of real activations and the mean pair distance."""
    perturbation: InOrOut = "in"
    """Among the positions whose activation is moved."""
    average: InOrOut = "in"
    """Among the positions that a sequence's mean is taken over."""


@dataclass(frozen=True)
class Positions:
    """The positions that are perturbed and those that are read, of sequences of one length."""

    perturbed: tuple[int, ...]
    read: tuple[int, ...]

    @property
    def span(self) -> Span:
        """What a perturbed run must compute: from the first perturbed position to the last that is read."""
        return Span(min(self.perturbed), max(self.read) + 1)


def parse_positions(text: str, length: int) -> Positions:
    """The positions that `text` means in sequences of `length` tokens.

    `all`; `last`; `32` (that one); `32+16` (perturb 32, read 32 to 48); `3,7,9` (perturb and read these).

    Raises:
        TiltmeterError: the text is none of these, or a position is outside the sequence.
    """
    text = text.strip()
    if text == "all":
        perturbed = read = tuple(range(length))
    elif text == "last":
        perturbed = read = (length - 1,)
    elif match := re.fullmatch(r"(\d+)\+(\d+)", text):
        perturbed = (int(match[1]),)
        read = tuple(range(int(match[1]), int(match[1]) + int(match[2]) + 1))
    elif re.fullmatch(r"\d+(,\s*\d+)*", text):
        perturbed = read = tuple(sorted({int(part) for part in text.split(",")}))
    else:
        raise TiltmeterError(
            f"Positions {text!r} were not understood; give all, last, one position (32), one and the n after it "
            "(32+16) or a list (3,7,9)."
        )
    if max(read) >= length:
        raise TiltmeterError(
            f"Position {max(read)} was asked for, but the sequences have {length} tokens (positions 0 to {length - 1})."
        )
    return Positions(perturbed, read)


def boundary_mask(tokens: Int[Tensor, "batch position"], boundary: int | None) -> Bool[Tensor, "batch position"]:
    """Where the boundary positions are."""
    mask = torch.zeros_like(tokens, dtype=torch.bool) if boundary is None else tokens == boundary
    mask = mask.clone()
    mask[:, 0] = True
    return mask


def allowed(mask: Bool[Tensor, "batch position"], policy: InOrOut) -> Bool[Tensor, "batch position"]:
    """The positions that take part: all, or all but the boundary ones."""
    return torch.ones_like(mask) if policy == "in" else ~mask
