"""Interventions that substitute another activation for x (Gurnee 2024, Lee & Heimersheim 2024).

Each is a direction whose vector x' - x *ends* at the substitute x', where the path `substitute` goes. Below, s is the
SAE's output and ε = ‖s - x‖, both in the measured stream of the site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from tiltmeter.perturb.directions import Direction, difference, normalise
from tiltmeter.perturb.sources import Context, Source
from tiltmeter.saes.at_site import SAEAtSite

Formula = Callable[[Float64[Tensor, "*token d"], Float64[Tensor, "*token d"]], Float64[Tensor, "*token d"]]
"""A vector computed from x and s."""


@dataclass(frozen=True)
class Substitution:
    """A substitute given by a formula of x and s. Where it is undefined (e.g. s is zero), no direction exists."""

    sae: SAEAtSite
    substitute: Formula

    def vector(self, context: Context) -> Tensor:
        """Return the substitute minus x."""
        x, s = _pair(self.sae, context)
        return difference(self.substitute(x, s), x)


@dataclass(frozen=True)
class ThetaRandom:
    """A random vector at the angle that s has to x: size · (x̂ cos(x, s) + ĝ sin(x, s)), with ĝ orthogonal to x."""

    sae: SAEAtSite
    noise: Source
    size: Formula
    """The vector whose norm the substitute has."""

    def vector(self, context: Context) -> Tensor:
        """Return the substitute minus x."""
        x, s = _pair(self.sae, context)
        g = self.sae.centre(self.noise.sample(context, 1)[0].to(x))
        along = x / norm(x)
        across = _orthogonal(_orthogonal(g, along), along)  # twice, to remove what rounding left
        cosine, sine = _dot(s, along) / norm(s), norm(_orthogonal(s, along)) / norm(s)
        return difference(norm(self.size(x, s)) * (cosine * along + sine * across / norm(across)), x)


@dataclass(frozen=True)
class AtDistance:
    """ε times the unit vector of another direction, so that the substitute is as far from x as s is."""

    sae: SAEAtSite
    direction: Direction

    def vector(self, context: Context) -> Tensor:
        """Return the substitute minus x."""
        x, s = _pair(self.sae, context)
        # centred before normalising, or the model would see a perturbation shorter than ε
        return norm(s - x) * normalise(self.direction, context, self.sae.centre).unit.to(x)


def norm_corrected(x: Tensor, s: Tensor) -> Tensor:
    """Rescale s to the norm of x."""
    return s * (norm(x) / norm(s))


def cos_corrected(x: Tensor, s: Tensor) -> Tensor:
    """Rescale x to the norm of s."""
    return x * (norm(s) / norm(x))


def norm(vector: Float64[Tensor, "*token d"]) -> Float64[Tensor, "*token 1"]:
    """L2 norm."""
    return vector.norm(dim=-1, keepdim=True)


def _pair(sae: SAEAtSite, context: Context) -> tuple[Tensor, Tensor]:
    """Return x and s, in float64."""
    return context.x.double(), sae.reconstruct(context.x).double()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)[..., None]


def _orthogonal(vector: Tensor, unit: Tensor) -> Tensor:
    return vector - _dot(vector, unit) * unit
