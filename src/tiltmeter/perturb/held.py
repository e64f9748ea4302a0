"""Random directions that are drawn once and held: the same vector at every token of every sequence.

Other random directions are drawn for each token anew. A vector of the user's is the same at every token, so it is
exchangeable with such draws only, if it is of their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.analysis.standing import FEATURE, PERMUTATION
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.directions import Direction, Mixture, Plain
from tiltmeter.perturb.own_directions import OwnDirection
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Context
from tiltmeter.runs.rng import Address, uniform
from tiltmeter.saes.at_site import RowsAtSite

NO_SEQUENCE = 2**32 - 1
"""The sequence in the address of draws that belong to none."""

ATTEMPTS = 100
"""How often a draw is repeated that has no direction."""

OF_STATISTICS: Mapping[str, Callable[[SiteStatistics], Direction]] = {
    "isotropic": lambda s: Plain(s.isotropic),
    "cov-random-mixture": lambda s: Mixture(s.gaussian),
    "real-mixture": lambda s: Mixture(s.real),
}
"""Directions that are independent of x, so that one draw can be used at every token."""


@dataclass(frozen=True)
class Held:
    """One draw of a direction that does not depend on x, used at every token."""

    direction: Direction
    kind: str
    draw: int

    def vector(self, context: Context) -> Tensor:
        """Return the draw, broadcast to every token.

        A draw that is zero, as the difference of two equal activations is, has no direction and is repeated: a
        user's vector, which has one, is exchangeable with the others only.

        Raises:
            TiltmeterError: all of a hundred are zero.
        """
        for attempt in range(ATTEMPTS):
            kind = f"{self.kind}, attempt {attempt}" if attempt else self.kind
            address = _address(context.address.seed, kind, self.draw)
            one = replace(context, x=context.x.new_zeros(1, 1, context.x.shape[-1]), address=address, tokens=None)
            if bool((found := self.direction.vector(one)).any()):
                return found.to(context.x).expand_as(context.x)
        raise TiltmeterError(
            f"{ATTEMPTS} random vectors of {self.kind} were all zero, because activations at this site are equal; "
            "leave this baseline out, or take other tokens or another site."
        )


@dataclass(frozen=True)
class HeldDraw:
    """A draw that needs the statistics of the site."""

    kind: str
    draw: int

    def at(self, statistics: SiteStatistics) -> Direction:
        """The direction at the site."""
        return Held(OF_STATISTICS[self.kind](statistics), self.kind, self.draw)


def draws_of(kind: str, count: int) -> list[OwnDirection]:
    """Draws of a kind in `OF_STATISTICS`."""
    return [OwnDirection(HeldDraw(kind, draw), f"draw {draw} of {kind}, held at every token") for draw in range(count)]


def permutations(label: str, vector: Float[Tensor, "d_site"], count: int, seed: int) -> list[Tensor]:
    """Random permutations of a vector's coordinates.

    They have the vector's norm, mean and outlying coordinates, and nothing else of it.
    """
    found = []
    for draw in range(count):
        address = _address(seed, f"{PERMUTATION}:{label}", draw)
        order = uniform(address, "order", len(vector))[0, 0].argsort(stable=True)
        found.append(vector[order])
    return found


def features(sae: RowsAtSite, count: int, seed: int) -> list[Tensor]:
    """Decoder rows of random latents whose row has a length, without replacement.

    Returns:
        As many as there are, at most `count`.
    """
    kept = sae.not_zero
    address = _address(seed, FEATURE, 0)
    chosen = kept[uniform(address, "latent", len(kept))[0, 0].argsort(stable=True)[:count]]
    return list(sae.rows(chosen).double().cpu())


def _address(seed: int, direction: str, draw: int) -> Address:
    return Address(seed, f"held:{direction}", torch.tensor([NO_SEQUENCE]), torch.tensor([0]), draw)
