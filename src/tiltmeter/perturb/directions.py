"""Directions, the combinators that build them, and the perturbations they become once normalised.

A combinator turns a source into a direction: `Difference` (a sample minus x), `Mixture` (one sample minus another) or
`Plain` (the sample itself). `Toward` leads to a fixed point, and `Along` is a user's vector.
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
    """A direction evaluated at each token: a unit vector and the length it had."""

    unit: Float[Tensor, "batch position d_site"]
    """Unit vectors, or zero where the direction does not exist because the target equals the activation."""
    distance: Float[Tensor, "batch position"]
    """L2 norm of the vector before it was normalised: the distance to the target."""
    vector: Float[Tensor, "batch position d_site"]
    """The vector before it was normalised, in the measured stream. x + vector is exactly the target."""


@runtime_checkable
class Direction(Protocol):
    """A vector per token, as a function of the token's activation, sequence and random address."""

    def vector(self, context: Context) -> Float[Tensor, "batch span d_site"]:
        """Compute the vector, of any norm. It is zero where the direction does not exist."""
        ...


@dataclass(frozen=True)
class Plain:
    """A sample of a source, without subtracting anything."""

    source: Source

    def vector(self, context: Context) -> Tensor:
        """Sample."""
        return self.source.sample(context, 1)[0].to(context.x)


@dataclass(frozen=True)
class Difference:
    """A sample of a source minus the activation: from x toward the sample."""

    source: Source

    def vector(self, context: Context) -> Tensor:
        """Return sample minus x."""
        return difference(self.source.sample(context, 1)[0].to(context.x), context.x)


@dataclass(frozen=True)
class Mixture:
    """One sample of a source minus another, so independent of x (Lee & Heimersheim 2024)."""

    source: Source

    def vector(self, context: Context) -> Tensor:
        """Return the first sample minus the second."""
        first, second = self.source.sample(context, 2)
        return difference(first, second).to(context.x)


@dataclass(frozen=True)
class Toward:
    """A fixed point minus the activation: from x toward the point."""

    point: Float[Tensor, "d_site"]

    def vector(self, context: Context) -> Tensor:
        """Return the point minus x."""
        return difference(self.point.to(context.x), context.x)


@dataclass(frozen=True)
class Along:
    """The same user-supplied vector at every token, e.g. a steering vector or a probe."""

    given: Float[Tensor, "d_site"]

    def vector(self, context: Context) -> Tensor:
        """Return the vector, broadcast to every token."""
        return self.given.to(context.x).expand_as(context.x)


@dataclass(frozen=True)
class Minus:
    """The opposite of a direction."""

    direction: Direction

    def vector(self, context: Context) -> Tensor:
        """Return the negated vector."""
        return -self.direction.vector(context)


def normalise(direction: Direction, context: Context, centre: Callable[[Tensor], Tensor]) -> Perturbation:
    """Normalise the vectors of a direction, after `centre` has removed what the model is blind to.

    A LayerNorm model ignores a vector's mean over d_model, so in a centred stream it must not count toward the length.
    """
    given = direction.vector(context)
    vector = without_rounding(centre, given)
    distance = _norm(vector)
    unit = torch.where(distance > 0, vector / distance, 0.0)
    return Perturbation(unit.to(context.x), distance[..., 0].to(context.x), vector.to(context.x))


def without_rounding(centre: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    """The centred vectors, zero where only rounding error is left of one."""
    return _without_rounding(centre(given), given)


def difference(end: Tensor, start: Tensor) -> Tensor:
    """Return `end - start`, or zero where that is only rounding error and hence not a direction."""
    return _without_rounding(end - start, start)


def _without_rounding(rest: Tensor, operand: Tensor) -> Tensor:
    """Zero the results of a subtraction from `operand` that are no larger than rounding error."""
    return torch.where(_norm(rest) > 1e-5 * _norm(operand), rest, 0.0)


def _norm(vector: Tensor) -> Tensor:
    """L2 norm in float64: squares of a user's very long or short vector would overflow or underflow in float32."""
    return torch.linalg.vector_norm(vector, dim=-1, keepdim=True, dtype=torch.float64)
