"""What a direction is, the combinators that make one, and the perturbation that it becomes once it is normalised.

A direction comes from a source by a combinator, `Difference` (a sample minus x), `Mixture` (one sample minus another)
or `Plain` (a sample as it is), leads to a fixed point (`Toward`) or is the user's (`Along`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.perturb.sources import Context, Source


class Perturbation(NamedTuple):
    """Where a direction points from each token."""

    unit: Float[Tensor, "batch position d_site"]
    """Unit vectors; zero where there is no direction (the target is the activation itself)."""
    distance: Float[Tensor, "batch position"]
    """L2 length the vector had before it was normalised: how far away the target is."""
    vector: Float[Tensor, "batch position d_site"]
    """The vector before it was normalised, as measured: x + vector is the target, to the last digit."""


@runtime_checkable
class Direction(Protocol):
    """A vector for each token, as a function of its activation, its sequence and its address."""

    def vector(self, context: Context) -> Float[Tensor, "batch span d_site"]:
        """The vector, of any length; zero where there is no direction."""
        ...


@dataclass(frozen=True)
class Plain:
    """A sample of a source, with nothing subtracted."""

    source: Source

    def vector(self, context: Context) -> Tensor:
        """Sample."""
        return self.source.sample(context, 1)[0].to(context.x)


@dataclass(frozen=True)
class Difference:
    """A sample of a source minus the activation: from x toward the sample."""

    source: Source

    def vector(self, context: Context) -> Tensor:
        """Sample minus x."""
        return difference(self.source.sample(context, 1)[0].to(context.x), context.x)


@dataclass(frozen=True)
class Mixture:
    """One sample of a source minus another: no trace of x in it (Lee & Heimersheim 2024)."""

    source: Source

    def vector(self, context: Context) -> Tensor:
        """First sample minus second."""
        first, second = self.source.sample(context, 2)
        return difference(first, second).to(context.x)


@dataclass(frozen=True)
class Toward:
    """A fixed point minus the activation: from x toward the point."""

    point: Float[Tensor, "d_site"]

    def vector(self, context: Context) -> Tensor:
        """Point minus x."""
        return difference(self.point.to(context.x), context.x)


@dataclass(frozen=True)
class Along:
    """One vector of the user's for every token: a steering vector, a probe."""

    given: Float[Tensor, "d_site"]

    def vector(self, context: Context) -> Tensor:
        """The vector, everywhere."""
        return self.given.to(context.x).expand_as(context.x)


@dataclass(frozen=True)
class Minus:
    """The opposite of a direction."""

    direction: Direction

    def vector(self, context: Context) -> Tensor:
        """The vector with the other sign."""
        return -self.direction.vector(context)


def normalise(direction: Direction, context: Context, centre: Callable[[Tensor], Tensor]) -> Perturbation:
    """Normalise a direction's vectors, after `centre` has taken out what the model cannot see.

    In a centred stream a vector's mean over d_model is invisible, so it must not count toward its length.
    """
    given = direction.vector(context)
    vector = _without_rounding(centre(given), given)
    distance = _norm(vector)
    unit = torch.where(distance > 0, vector / distance, 0.0)
    return Perturbation(unit.to(context.x), distance[..., 0].to(context.x), vector.to(context.x))


def difference(end: Tensor, start: Tensor) -> Tensor:
    """`end - start`; zero where that is no more than rounding, which is no direction."""
    return _without_rounding(end - start, start)


def _without_rounding(rest: Tensor, operand: Tensor) -> Tensor:
    """What a subtraction from `operand` left; zero where that is no more than rounding."""
    return torch.where(_norm(rest) > 1e-5 * _norm(operand), rest, 0.0)


def _norm(vector: Tensor) -> Tensor:
    """In float64: the squares of a user's very long or short vector would overflow or vanish in float32."""
    return torch.linalg.vector_norm(vector, dim=-1, keepdim=True, dtype=torch.float64)
