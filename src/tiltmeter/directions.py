"""Directions: a vector for each perturbed token.

Built from a source by a combinator, `difference` (a sample minus x), `mixture` (one sample minus another) or `plain`
(a sample as it is), or brought by the user (`along`). The papers' names for the ones they use are in `DIRECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.context import Context
from tiltmeter.errors import TiltmeterError
from tiltmeter.sources import Source
from tiltmeter.statistics import SiteStatistics


class Push(NamedTuple):
    """Where a direction points from each token."""

    unit: Float[Tensor, "batch position d_site"]
    """Unit vectors; zero where there is no direction (the target is the activation itself)."""
    distance: Float[Tensor, "batch position"]
    """L2 length the vector had before it was normalised: how far away the target is."""


@runtime_checkable
class Direction(Protocol):
    """A vector for each token, as a function of its activation, its sequence and its address."""

    def vector(self, context: Context) -> Float[Tensor, "batch span d_site"]:
        """The vector, of any length."""
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
        return _minus(self.source.sample(context, 1)[0].to(context.x), context.x)


@dataclass(frozen=True)
class Mixture:
    """One sample of a source minus another: no trace of x in it (Lee & Heimersheim 2024)."""

    source: Source

    def vector(self, context: Context) -> Tensor:
        """First sample minus second."""
        first, second = self.source.sample(context, 2)
        return _minus(first, second).to(context.x)


@dataclass(frozen=True)
class Along:
    """One vector of the user's for every token: a steering vector, a probe."""

    given: Float[Tensor, "d_site"]

    def vector(self, context: Context) -> Tensor:
        """The vector, everywhere."""
        return self.given.to(context.x).expand_as(context.x)


class Definition(NamedTuple):
    """A direction that has a name."""

    build: Callable[[SiteStatistics], Direction]
    meaning: str


DIRECTIONS: Mapping[str, Definition] = {
    "isotropic": Definition(lambda s: Plain(s.isotropic), "g, with g ~ N(0, I)"),
    "isotropic-difference": Definition(lambda s: Difference(s.isotropic), "g - x, with g ~ N(0, I)"),
    "cov-random-difference": Definition(lambda s: Difference(s.gaussian), "sample of N(mean, covariance) - x"),
    "cov-random-mixture": Definition(lambda s: Mixture(s.gaussian), "sample of N(mean, covariance) - another"),
    "real-difference": Definition(lambda s: Difference(s.real), "activation of another sequence - x"),
    "real-mixture": Definition(lambda s: Mixture(s.real), "activation of another sequence - another such"),
}
"""The directions of Lee & Heimersheim 2024 that need no SAE, and what they are before normalisation."""


def build_directions(
    names: tuple[str, ...], statistics: SiteStatistics, vectors: Mapping[str, Tensor]
) -> dict[str, Direction]:
    """The directions of these names. `vectors` holds the user's own, by the names given to them (`along:...`).

    Raises:
        TiltmeterError: an unknown name, or a vector of another width than the site's.
    """
    return {name: _build(name, statistics, vectors) for name in names}


def _build(name: str, statistics: SiteStatistics, vectors: Mapping[str, Tensor]) -> Direction:
    if name in vectors:
        width = len(statistics.mean)
        if vectors[name].shape != (width,):
            raise TiltmeterError(
                f"The vector {name} has width {vectors[name].shape[-1]}, but those at this site {width}; "
                "give vectors of that width."
            )
        return Along(vectors[name])
    check_direction_name(name)
    return DIRECTIONS[name].build(statistics)


def check_direction_name(name: str) -> None:
    """Refuse a name that is no direction's."""
    if name not in DIRECTIONS:
        raise TiltmeterError(
            f"{name!r} is not a direction; choose from {', '.join(DIRECTIONS)}, or along:FILE for your own vectors."
        )


def push(direction: Direction, context: Context, centre: Callable[[Tensor], Tensor]) -> Push:
    """Normalise a direction's vectors, after `centre` has taken out what the model cannot see.

    In a centred stream a vector's mean over d_model is invisible, so it must not count toward its length.
    """
    given = direction.vector(context)
    vector = _without_rounding(centre(given), given)
    distance = _norm(vector)
    unit = torch.where(distance > 0, vector / distance, 0.0)
    return Push(unit.to(context.x), distance[..., 0].to(context.x))


def _minus(end: Tensor, start: Tensor) -> Tensor:
    return _without_rounding(end - start, start)


def _without_rounding(rest: Tensor, operand: Tensor) -> Tensor:
    """What a subtraction from `operand` left; zero where that is no more than rounding, which is no direction."""
    return torch.where(_norm(rest) > 1e-5 * _norm(operand), rest, 0.0)


def _norm(vector: Tensor) -> Tensor:
    """In float64: the squares of a user's very long or short vector would overflow or vanish in float32."""
    return torch.linalg.vector_norm(vector, dim=-1, keepdim=True, dtype=torch.float64)
