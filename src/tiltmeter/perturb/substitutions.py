"""Interventions that put another activation in the place of x: Gurnee 2024, Lee & Heimersheim 2024.

Each is a direction whose vector *ends* at the substitute, x' - x; the path `substitute` goes there. With s the SAE's
output and ε = ‖s - x‖, both as measured at the site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from tiltmeter.perturb.directions import Direction, difference, normalise
from tiltmeter.perturb.sources import Context, Source
from tiltmeter.saes.at_site import AtSite

Formula = Callable[[Float64[Tensor, "*token d"], Float64[Tensor, "*token d"]], Float64[Tensor, "*token d"]]
"""Something made of x and s."""


@dataclass(frozen=True)
class Substitution:
    """A substitute that is a formula of x and s. Where it is none (s is zero, say), there is no direction."""

    sae: AtSite
    substitute: Formula

    def vector(self, context: Context) -> Tensor:
        """Substitute minus x."""
        x, s = _pair(self.sae, context)
        return difference(self.substitute(x, s), x)


@dataclass(frozen=True)
class ThetaRandom:
    """A random vector at the angle that s has to x: size · (x̂ cos(x, s) + ĝ sin(x, s)), ĝ orthogonal to x."""

    sae: AtSite
    noise: Source
    size: Formula
    """The vector whose norm the substitute gets."""

    def vector(self, context: Context) -> Tensor:
        """Substitute minus x."""
        x, s = _pair(self.sae, context)
        g = self.sae.centre(self.noise.sample(context, 1)[0].to(x))
        along = x / norm(x)
        across = _orthogonal(_orthogonal(g, along), along)  # twice, for what rounding left
        cosine, sine = _dot(s, along) / norm(s), norm(_orthogonal(s, along)) / norm(s)
        return difference(norm(self.size(x, s)) * (cosine * along + sine * across / norm(across)), x)


@dataclass(frozen=True)
class AtDistance:
    """ε times the unit vector of another direction: as far from x as s is."""

    sae: AtSite
    direction: Direction

    def vector(self, context: Context) -> Tensor:
        """Substitute minus x."""
        x, s = _pair(self.sae, context)
        # centred before it is normalised, or the model would feel less than ε
        return norm(s - x) * normalise(self.direction, context, self.sae.centre).unit.to(x)


def norm_corrected(x: Tensor, s: Tensor) -> Tensor:
    """s, as long as x."""
    return s * (norm(x) / norm(s))


def cos_corrected(x: Tensor, s: Tensor) -> Tensor:
    """x, as long as s."""
    return x * (norm(s) / norm(x))


def norm(vector: Float64[Tensor, "*token d"]) -> Float64[Tensor, "*token 1"]:
    """L2 norm."""
    return vector.norm(dim=-1, keepdim=True)


def _pair(sae: AtSite, context: Context) -> tuple[Tensor, Tensor]:
    """X and s, in float64."""
    return context.x.double(), sae.reconstruct(context.x).double()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)[..., None]


def _orthogonal(vector: Tensor, unit: Tensor) -> Tensor:
    return vector - _dot(vector, unit) * unit
