"""Results of Heimersheim & Mendel 2024's experiments in worlds whose truth is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiltmeter.analysis.curves import Axes, build
from tiltmeter.studies.heimersheim2024.experiments import (
    COARSE_DEGREES,
    DEGREES,
    LENGTHS,
    NAIVE,
    RANDOM,
    RANDOM_TRIANGLE,
    REAL,
    REAL_TRIANGLE,
    plane,
    triangle,
)
from tiltmeter.studies.results import Results

N, MANY, NORM, PAIR, SIDE = 64, 2560, 30.0, 25.0, 4
L2, COS = "l2@blocks.5.hook_resid_post", "cos@blocks.5.hook_resid_post"
UNITS = {LENGTHS: "‖x‖", DEGREES: "degrees", COARSE_DEGREES: "degrees"}
WEIGHTS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)


class World(NamedTuple):
    """A made-up model: KL is size · (distance / ‖x‖) ^ power, with power and size by what is done."""

    real_base: float = 2.0
    random_base: float = 2.0
    other_base: float = 2.0
    """Powers: above two a plateau, below two none. All bases have one KL at ‖x‖."""
    at_random_base: float = 1.0
    """Size from the random base, of that from real ones."""
    real: float = 1.0
    naive: float = 1.0
    last_layer_real: float = 1.0
    """Sizes, of the random direction's."""
    real_corner: float = 1.0
    random_corners: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Sizes at corners, of those in the middle."""
    size: float = 4.0
    noise: float = 0.05


HOLDS = World(
    real_base=7.0, random_base=1.2, other_base=4.0, real=3.0, naive=0.3, real_corner=8.0, random_corners=(0.9, 0.9, 0.9)
)
FAILS = World(
    real_base=1.2,
    random_base=7.0,
    other_base=1.2,
    real=0.3,
    naive=3.0,
    last_layer_real=2.0,
    real_corner=0.1,
    random_corners=(9.0, 3.0, 1.5),
    size=1.0,
)
NULL = World(noise=0.4)


def dataset(names, steps, sizes, power, world, seed, prompts=N):
    """Curves along directions of such sizes, each [1] or [sequence]; every curve has some luck of its own."""
    rng = np.random.default_rng(seed)
    norms = NORM * rng.uniform(0.9, 1.1, prompts)
    along = np.asarray(steps) if UNITS[steps] == "‖x‖" else 2 * np.sin(np.radians(steps) / 2)
    luck = np.exp(world.noise * rng.normal(size=(len(names), 1, prompts)))
    powers = power * np.exp(world.noise / 4 * rng.normal(size=(len(names), 1, prompts)))
    kl = world.size * np.asarray(sizes)[:, None, None] * luck * along[None, :, None] ** powers
    length = np.broadcast_to(along[None, :, None] * norms, kl.shape)
    readouts = {"kl": kl, L2: 10 * np.sqrt(kl), COS: 1 - kl / 1000, "length": length}
    axes = Axes(list(names), list(steps), UNITS[steps], range(prompts))
    attrs = {"pair_distance": float(PAIR), "saes": "{}", "site": "blocks.1.hook_resid_pre"}
    return build(readouts, np.ones((len(names), prompts), dtype=np.int64), axes, attrs)


def dents(corners, names, world):
    """Sizes on a triangle: a corner's own at it, falling off to one."""
    weights = np.array([[float(term.partition("*")[0]) for term in name[6:].split("+")] for name in names])
    return 1 + (weights**3) @ (np.array(corners) - 1)


def results(world):
    """All experiments in a made-up model."""
    found = {}
    for at, (mode, steps) in enumerate({"straight": LENGTHS, "sphere": DEGREES}.items()):
        trio, sizes = (RANDOM, REAL, NAIVE), (1.0, world.real, world.naive)
        found[mode] = dataset(trio, steps, sizes, world.real_base, world, at)
        found[f"{mode}-random-base"] = dataset(
            (RANDOM,), steps, (world.at_random_base,), world.random_base, world, 10 + at
        )
        found[f"{mode}-other-base"] = dataset((RANDOM,), steps, (1.0,), world.other_base, world, 20 + at)
        drawn = (RANDOM, f"{RANDOM}@1", REAL, f"{REAL}@1")
        found[f"{mode}-draws"] = dataset(drawn, steps, (1.0, 1.0, world.real, world.real), 2.0, world, 30 + at)
    last = (1.0, world.last_layer_real)
    found["sphere-last-layer"] = dataset((RANDOM, REAL), DEGREES, last, world.real_base, world, 40)
    corners = {"triangle-random": world.random_corners, "triangle-real": (world.real_corner, 1.0, 1.0)}
    targets = {"triangle-random": RANDOM_TRIANGLE, "triangle-real": REAL_TRIANGLE}
    for at, (name, sizes) in enumerate(corners.items()):
        names = triangle(targets[name], SIDE)
        # luck of a prompt, not of a point: neighbours are alike
        smooth = world._replace(noise=world.noise / 10)
        found[name] = dataset(names, COARSE_DEGREES, dents(sizes, names, world), 2.0, smooth, 50 + at)
    found["plane"] = on_the_plane()
    return Results(found, {})


def on_the_plane():
    """KL 10 a + b."""
    names = plane(WEIGHTS)
    weights = [[float(term.partition("*")[0]) for term in name[6:].split("+")] for name in names]
    kl = np.array([10 * a + b for a, b in weights])[:, None, None] * np.ones((1, 1, 2))
    axes = Axes(list(names), [1.0], "substitution", range(2))
    readouts = {"kl": kl, L2: 2 * kl, COS: 0 * kl, "length": kl}
    return build(readouts, np.ones((len(names), 2), dtype=np.int64), axes, {"pair_distance": float(PAIR)})
