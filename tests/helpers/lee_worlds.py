"""Results of Lee & Heimersheim 2024's experiments in worlds whose truth is known."""

import json

import numpy as np
import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.studies.lee2024.experiments import BASELINES, DEGREES, LENGTHS, PAIR_DISTANCE, SUBSTITUTIONS
from tiltmeter.studies.results import Results

SAES = {
    "local-3-l0-4": ("local", 4.0),
    "local-3-l0-31": ("local", 31.0),
    "e2e-3-l0-4": ("e2e", 4.0),
    "e2e-3-l0-26": ("e2e", 26.0),
    "e2e+ds-3-l0-5": ("e2e+ds", 5.0),
    "e2e+ds-3-l0-33": ("e2e+ds", 33.0),
}
L2 = "l2@blocks.5.hook_resid_post"
PAIR = 33.0
SEQUENCES = 48


def dataset(heights, steps, units, saes=(), noise=0.03, path_unit="pair-distance"):
    """Curves whose KL at each step is what `heights` gives for a direction, times a sequence's own luck."""
    rng = np.random.default_rng(0)
    luck = np.exp(rng.normal(0, noise, (len(heights), 1, SEQUENCES)))
    kl = np.array([[height(step) for step in steps] for height in heights.values()])[..., None] * luck
    length = np.broadcast_to(np.asarray(steps)[None, :, None], kl.shape)
    readouts = {"kl": kl, L2: np.sqrt(kl + 1e-12) * 10, "length": length}
    facts = {name: {"kind": SAES[name][0], "l0": SAES[name][1]} for name in saes}
    attrs = {
        "path_unit": path_unit,
        "pair_distance": float(PAIR),
        "saes": json.dumps(facts),
        "site": "blocks.3.hook_resid_pre",
    }
    axes = curves.Axes(list(heights), steps, units, range(SEQUENCES))
    return curves.build(readouts, np.full((len(heights), SEQUENCES), 128), axes, attrs)


STEPS = tuple(length / PAIR_DISTANCE * PAIR for length in LENGTHS)
"""The paper's lengths, as another model has them."""


def square(factor):
    return lambda step: factor * (step / 10) ** 2


def directions(**factors):
    given = {name.replace("_", "-"): square(factor) for name, factor in factors.items()}
    return dataset(given, STEPS, "L2")


def at_constant_norm(difference):
    """Curves by angle: differences so many times as strong as mixtures."""
    names = ("cov-random-difference", "cov-random-mixture", "real-difference", "real-mixture")
    factors = (difference, 1.0, difference, 1.0)
    heights = {name: square(factor) for name, factor in zip(names, factors, strict=True)}
    return dataset(heights, DEGREES, "degrees", path_unit="degrees")


FACTORS = {
    "isotropic": 0.8,
    "isotropic_difference": 5.0,
    "cov_random_difference": 3.6,
    "cov_random_mixture": 2.0,
    "real_difference": 4.8,
    "real_mixture": 2.2,
}


def plateau(low, high, knee=20.0):
    """Low up to the knee, then a straight rise."""
    return lambda step: low * step / knee if step < knee else low + high * (step - knee)


def errors(end_to_end):
    """Local errors near the mixture, the sparser above; end-to-end ones as given (by kind and rank)."""
    heights = {name: plateau(0.2, 0.2, 12.0) for name in BASELINES}
    heights |= {
        "sae-error:local-3-l0-4": plateau(0.22, 0.24, 12.0),
        "sae-error:local-3-l0-31": plateau(0.18, 0.18, 12.0),
    }
    for kind, saes in (("e2e", ("4", "26")), ("e2e+ds", ("5", "33"))):
        for rank, l0 in enumerate(saes):
            heights[f"sae-error:{kind}-3-l0-{l0}"] = end_to_end(rank)
    return dataset(heights, STEPS, "L2", SAES)


def features(local, e2e, downstream):
    """Features at the paper's L0 by kind; the sparsest of each a fifth above."""
    heights = {name: square(factor) for name, factor in zip(BASELINES, (1.0, 2.0, 2.1), strict=True)}
    for kind, saes, factor in (
        ("local", ("4", "31"), local),
        ("e2e", ("4", "26"), e2e),
        ("e2e+ds", ("5", "33"), downstream),
    ):
        for rank, l0 in enumerate(saes):
            heights[f"sae-feature:{kind}-3-l0-{l0}"] = square(factor * (1.2 if rank == 0 else 1.0))
    return dataset(heights, STEPS, "L2", SAES)


def substitution(saes, factors):
    """KL of each substitution for each SAE."""
    heights = {
        f"{kind}:{sae}": square(factor) for sae in saes for kind, factor in zip(SUBSTITUTIONS, factors, strict=True)
    }
    return dataset(heights, (1.0,), "substitution", saes)


def shapes(mixture):
    """Single curves: along mixtures a token's KL is this many times that along isotropic directions, with much luck."""
    lengths = tuple(float(length) for length in range(0, 101, 4))
    rng = np.random.default_rng(0)
    sizes = np.array([1.0, mixture, mixture])[:, None, None, None]
    squares = (np.array(lengths) / 10)[None, :, None, None] ** 2
    kl = sizes * squares * np.exp(rng.normal(0, 0.5, (3, 1, SEQUENCES, 8)))
    attrs = {
        "path_unit": "pair-distance",
        "pair_distance": float(PAIR),
        "saes": "{}",
        "site": "blocks.3.hook_resid_pre",
    }
    steps = tuple(length / PAIR_DISTANCE * PAIR for length in lengths)
    axes = curves.Axes(list(BASELINES), steps, "L2", range(SEQUENCES), range(8))
    return curves.build({"kl": kl}, np.ones((3, SEQUENCES), int), axes, attrs)


def decoders(**nearest):
    """Cosines of features with their nearest neighbours, by kind of SAE, about these means."""
    rng = np.random.default_rng(0)
    means = [nearest[kind.replace("+", "_")] for kind, _ in SAES.values()]
    values = np.clip(np.array(means)[:, None] + rng.normal(0, 0.05, (len(means), 100)), -1, 1)
    return xr.Dataset({"nearest": (("sae", "sequence"), values)}, {"sae": list(SAES)})


WORLD = Results(
    {
        "directions": directions(**FACTORS),
        "directions-sphere": at_constant_norm(1.0),
        "directions-early": directions(**FACTORS),
        "directions-larger": directions(**FACTORS),
        "errors": errors(lambda rank: plateau(0.02, 0.3)),
        "features": features(2.5, 1.5, 1.9),
        "shapes": shapes(3.0),
        "decoders": decoders(local=0.6, e2e=0.3, e2e_ds=0.5),
        "reconstructions": substitution(SAES, (3.0, 1.0, 2.0, 2.2)),
        **{f"layers-{layer}": substitution(("local-3-l0-31",), (3.0, 1.0, 2.0, 2.2)) for layer in range(3)},
    },
    {},
)
