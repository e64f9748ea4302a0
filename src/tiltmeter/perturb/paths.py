"""Paths: the points at which a perturbed activation is evaluated along a direction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.directions import Perturbation
from tiltmeter.perturb.steps import check_angles, check_lengths
from tiltmeter.runs.config import Configuration

Unit = Literal["absolute", "norm", "target", "pair-distance"]

UNITS: Mapping[Unit, str] = {
    "absolute": "L2",
    "norm": "‖x‖",
    "target": "of the way to the target",
    "pair-distance": "pair distances",
}


class Straight(Configuration):
    """The straight line x + length · unit direction."""

    kind: Literal["straight"] = "straight"
    lengths: Annotated[tuple[float, ...], Field(min_length=1)]
    unit: Unit = "absolute"
    """`absolute`: L2 length (Lee & Heimersheim 2024). `norm`: in units of ‖x‖ (Heimersheim & Mendel 2024, straight
    mode). `target`: in units of the direction's vector, which ends at 1 (Giglemiani et al. 2024, relative).
    `pair-distance`: in units of the pair distance at the site."""

    @field_validator("lengths")
    @classmethod
    def _are_lengths(cls, lengths: tuple[float, ...]) -> tuple[float, ...]:
        check_lengths(lengths)
        return lengths

    @property
    def steps(self) -> tuple[float, ...]:
        """Coordinates of the points."""
        return self.lengths

    @property
    def units(self) -> str:
        """Unit of the steps."""
        return UNITS[self.unit]

    def resolved(self, pair_distance: float) -> Straight:
        """Convert a path in units of the pair distance to absolute lengths; return any other unchanged."""
        if self.unit != "pair-distance":
            return self
        if math.isnan(pair_distance):
            raise TiltmeterError(
                "The pair distance is that of activations of different sequences, and there is one sequence; use "
                "another unit, or more sequences."
            )
        if not pair_distance > 0:
            raise TiltmeterError(
                "All real activations at this site are equal, so their pair distance is zero; use another unit, "
                "or other tokens."
            )
        return Straight(lengths=tuple(length * pair_distance for length in self.lengths))

    def changes(
        self, x: Float[Tensor, "batch position d_site"], perturbation: Perturbation, steps: slice
    ) -> Float[Tensor, "step batch position d_site"]:
        """Return the displacements from x to the points at these steps, as one new tensor."""
        return self.at(
            x, perturbation, torch.tensor(self.lengths[steps], dtype=x.dtype, device=x.device)[:, None, None]
        )

    def at(
        self,
        x: Float[Tensor, "batch position d_site"],
        perturbation: Perturbation,
        lengths: Float[Tensor, "point #batch #position"],
    ) -> Float[Tensor, "point batch position d_site"]:
        """Return the displacements from x to points of the path, shared or per token, as one new tensor."""
        scale = {
            "absolute": torch.ones_like(perturbation.distance),
            "norm": x.norm(dim=-1),
            "target": perturbation.distance,
        }[self.unit]
        return lengths[..., None] * (scale[..., None] * perturbation.unit)


class Sphere(Configuration):
    """The great circle from x toward the direction, up to the antipode: the norm is constant, the angle grows.

    x(θ) = ‖x‖(cos θ · x̂ + sin θ · û), where û is the component of the direction orthogonal to x, normalised
    (Heimersheim & Mendel 2024, sphere mode). A target t and the difference t - x yield the same path.
    """

    kind: Literal["sphere"] = "sphere"
    degrees: Annotated[tuple[float, ...], Field(min_length=1)]

    @field_validator("degrees")
    @classmethod
    def _are_angles(cls, degrees: tuple[float, ...]) -> tuple[float, ...]:
        check_angles(degrees)
        return degrees

    @property
    def steps(self) -> tuple[float, ...]:
        """Coordinates of the points."""
        return self.degrees

    @property
    def unit(self) -> str:
        """The unit in which the steps are given."""
        return "degrees"

    @property
    def units(self) -> str:
        """Unit of the steps."""
        return "degrees"

    def resolved(self, pair_distance: float) -> Sphere:
        """Return the path itself: angles need no unit of length."""
        return self

    def changes(
        self, x: Float[Tensor, "batch position d_site"], perturbation: Perturbation, steps: slice
    ) -> Float[Tensor, "step batch position d_site"]:
        """Return the displacements from x to the points at these steps, as one new tensor."""
        return self.at(
            x, perturbation, torch.tensor(self.degrees[steps], dtype=x.dtype, device=x.device)[:, None, None]
        )

    def at(
        self,
        x: Float[Tensor, "batch position d_site"],
        perturbation: Perturbation,
        degrees: Float[Tensor, "point #batch #position"],
    ) -> Float[Tensor, "point batch position d_site"]:
        """Return the displacements from x to points of the path, shared or per token, as one new tensor.

        They are zero where the direction is parallel to x.
        """
        norm = x.norm(dim=-1, keepdim=True)
        radial = x / norm.clamp(min=1e-30)
        sideways = perturbation.unit - (perturbation.unit * radial).sum(-1, keepdim=True) * radial
        sideways = sideways - (sideways * radial).sum(-1, keepdim=True) * radial  # again, for rounding errors
        size = sideways.norm(dim=-1, keepdim=True)
        exists = size > 1e-5
        tangent = torch.where(exists, norm * sideways / size.clamp(min=1e-30), 0.0)
        angles = degrees.deg2rad()[..., None]
        # cos θ - 1 without cancellation, so that small angles keep their digits
        change = -2 * (angles / 2).sin() ** 2 * x + angles.sin() * tangent
        return torch.where(exists, change, 0.0)


class Substitute(Configuration):
    """The single point where the direction's vector ends: x + vector.

    With a direction that ends at a substitute for x, this is the intervention of Gurnee 2024.
    """

    kind: Literal["substitute"] = "substitute"

    @property
    def steps(self) -> tuple[float, ...]:
        """One."""
        return (1.0,)

    @property
    def unit(self) -> str:
        """The unit in which the step is given: none."""
        return "substitution"

    @property
    def units(self) -> str:
        """Unit of the step."""
        return "substitution"

    def resolved(self, pair_distance: float) -> Substitute:
        """Return the path itself: a substitution needs no unit of length."""
        return self

    def changes(
        self, x: Float[Tensor, "batch position d_site"], perturbation: Perturbation, steps: slice
    ) -> Float[Tensor, "step batch position d_site"]:
        """Return the displacement from x to the single point, as a new tensor."""
        return perturbation.vector.clone()[None][steps]


Path = Annotated[Straight | Sphere | Substitute, Field(discriminator="kind")]
