"""What is measured for the figures and claims of Heimersheim & Mendel 2024.

The post shows some twenty directions from one prompt. Here each of many prompts has a draw of its own, so that
intervals say what another sample of prompts would change; a few prompts have twenty draws, to look at.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from tiltmeter.models.sites import Site
from tiltmeter.perturb.bases import CLEAN
from tiltmeter.perturb.names import BLEND, DirectionName, draws
from tiltmeter.perturb.paths import Path, Sphere, Straight, Substitute
from tiltmeter.studies.latent_counts import LatentCounts
from tiltmeter.studies.results import NotMeasured
from tiltmeter.studies.study import Experiment, Size, Subject, SweepExperiment
from tiltmeter.sweeps.plan import Sweep

SMALL_LENGTHS, SMALL_DEGREES = (0.001, 0.002), (0.05, 0.1)
"""Steps so small that the response is quadratic (`tiltmeter.analysis.small_steps`)."""

LENGTHS = (0.0, *SMALL_LENGTHS, *(step / 20 for step in range(1, 21)))
"""Straight mode: from 0 to the norm of the base, in such norms."""

DEGREES = (0.0, *SMALL_DEGREES, *(float(angle) for angle in range(5, 181, 5)))
"""Sphere mode: from the base to its antipode."""

COARSE_DEGREES = (0.0, 10.0, *(float(angle) for angle in range(15, 61, 5)), 70.0, 80.0, 90.0, 120.0, 150.0, 180.0)
"""On the triangles, where only the angle of a crossing is wanted: fine up to 60."""

RANDOM, REAL, NAIVE = "cov-random-difference", "real-difference", "isotropic-difference"
"""The post's `random`, `real-other` and `naive random` directions."""

RANDOM_BASE, OTHER_BASE = "cov-random", "real"
"""A sample of N(mean, covariance), and another prompt's activation, in the place of the prompt's own."""

RANDOM_TRIANGLE = ("cov-random", "cov-random", "cov-random")
REAL_TRIANGLE = ("real", "cov-random", "cov-random")
"""Corners of a triangle of targets: top, left, right."""

DRAWS, DRAWN_PROMPTS = 20, 3
"""Directions of a kind from one prompt, and of how many prompts they are shown."""

PLANE = ("real", "real")
"""What spans the plane, together with the prompt's own activation."""


class Scale(NamedTuple):
    """How much is measured."""

    prompts: int
    triangles: int
    """Prompts that have triangles."""
    side: int
    """Intervals along a side of a triangle."""
    planes: int
    """Prompts that have a plane."""
    plane: tuple[float, ...]
    """Weights along both axes of a plane."""
    statistics: int


SCALES: dict[Size, Scale] = {
    "quick": Scale(40, 20, 4, 1, tuple(step / 4 for step in range(-2, 7)), 512),
    "default": Scale(512, 192, 8, 4, tuple(step / 8 for step in range(-4, 13)), 2048),
    "paper": Scale(1000, 1000, 10, 20, tuple(step / 20 for step in range(-10, 31)), 16_384),
}


def experiments(subject: Subject, size: Size) -> dict[str, Experiment | NotMeasured]:
    """The post's experiments on a subject, both modes, and the comment's test of the last layer.

    A base other than the prompt's own has the same targets as that, sequence by sequence.
    """
    scale = SCALES[size]
    site, last = Site(subject.layer, "resid_pre"), Site(subject.n_layers - 1, "resid_pre")
    straight, sphere = Straight(lengths=LENGTHS, unit="norm"), Sphere(degrees=DEGREES)
    found: dict[str, Experiment | NotMeasured] = {}
    for mode, path in (("straight", straight), ("sphere", sphere)):
        found[mode] = _sweep(subject, scale, site, path, (RANDOM, REAL, NAIVE))
        found[f"{mode}-random-base"] = _sweep(subject, scale, site, path, (RANDOM,), RANDOM_BASE)
        found[f"{mode}-other-base"] = _sweep(subject, scale, site, path, (RANDOM,), OTHER_BASE)
        drawn = (*draws(RANDOM, DRAWS), *draws(REAL, DRAWS))
        found[f"{mode}-draws"] = _sweep(subject, scale._replace(prompts=DRAWN_PROMPTS), site, path, drawn)
    found["sphere-last-layer"] = (
        _sweep(subject, scale, last, sphere, (RANDOM, REAL))
        if subject.layer < last.layer
        else NotMeasured(f"The last layer, {last.layer}, is the one that is studied.")
    )
    few = scale._replace(prompts=scale.triangles)
    for name, corners in (("triangle-random", RANDOM_TRIANGLE), ("triangle-real", REAL_TRIANGLE)):
        directions = triangle(corners, scale.side)
        found[name] = _sweep(subject, few, site, Sphere(degrees=COARSE_DEGREES), directions)
    fewer = scale._replace(prompts=scale.planes)
    found["plane"] = _sweep(subject, fewer, site, Substitute(), plane(scale.plane))
    sae = subject.local_at(site)
    found["latents"] = (
        LatentCounts(site.name, (sae.name,), scale.prompts, scale.statistics, subject.seed)
        if sae
        else NotMeasured(f"No SAE at {site.name} was given that was trained to reconstruct.")
    )
    return found


def triangle(corners: tuple[str, str, str], side: int) -> tuple[str, ...]:
    """Directions toward the points of a grid on the triangle between three targets."""
    counts = [(top, left, side - top - left) for top in range(side + 1) for left in range(side + 1 - top)]
    return tuple(_blend(tuple(count / side for count in point), corners) for point in counts)


def plane(weights: tuple[float, ...]) -> tuple[str, ...]:
    """Directions to the points of a grid on the plane through x and two others; x itself is no direction."""
    return tuple(_blend(point, PLANE) for point in product(weights, weights) if any(point))


def _blend(weights: tuple[float, ...], sources: tuple[str, ...]) -> str:
    # terms of no weight stay, since blends draw the same where their sources are the same
    terms = "+".join(f"{weight:.6g}*{source}" for weight, source in zip(weights, sources, strict=True))
    return str(DirectionName(BLEND, terms))


def _sweep(
    subject: Subject, scale: Scale, site: Site, path: Path, directions: tuple[str, ...], base: str = CLEAN
) -> SweepExperiment:
    late = subject.last.name
    return SweepExperiment(
        Sweep(
            site=site.name,
            directions=directions,
            base=base,
            path=path,
            readouts=("kl", f"l2@{late}", f"cos@{late}"),
            positions="last",
            statistics_positions="perturbed",
            sequences=scale.prompts,
            statistics_sequences=scale.statistics,
            shard=64,
            seed=subject.seed,
        )
    )
