"""What a direction may look at: the perturbed tokens, and the activations of the sequences that they are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from tiltmeter.noise import Address


@dataclass(frozen=True)
class Context:
    """Some tokens of some sequences, as measured at the site."""

    x: Float[Tensor, "batch span d_site"]
    """The activation at the tokens that a direction is wanted for."""
    address: Address
    """Their sequences and positions, and where their random numbers come from."""
    whole: Callable[[], Float[Tensor, "batch position d_site"]]
    """The activation at every position of the sequences: the clean one, or a base where one is in its place. Asked for,
    as the model need not have run positions behind those that are measured."""
    counted: Bool[Tensor, "batch position"]
    """The positions that statistics count: all, or all but the boundary positions."""
