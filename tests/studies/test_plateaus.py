"""No claim about plateaus is supported where there are none: where KL grows with the square of the distance."""

import numpy as np
import pytest

import giglemiani_worlds
import heimersheim_worlds
import lee_worlds
from tiltmeter.studies import STUDIES
from tiltmeter.studies.claims import judge
from tiltmeter.studies.giglemiani2024.experiments import TARGET
from tiltmeter.studies.results import Results

PLATEAU_CLAIMS = {
    "heimersheim2024": (
        "plateau-short",
        "plateau-medium",
        "plateau-short-l2",
        "plateau-short-cosine",
        "plateau-short-transplanted",
        "real-base-flat-to-40-degrees",
    ),
    "lee2024": ("errors-plateau", "errors-linear-after-plateau"),
    "giglemiani2024": (
        "plateaus-real-above-random",
        "plateaus-synthetic-less-pronounced",
        "plateaus-structured-like-random",
        "plateaus-baseline-steepest",
    ),
}
"""Every claim that there are plateaus, or that plateaus are longer or shorter."""

NAMES = [(study, name) for study, names in PLATEAU_CLAIMS.items() for name in names]
SLOPES = {"real": 0.3, "cov-random": 0.6, "synthetic-structured": 0.65, "synthetic-baseline": 0.9}
"""L2 per step: straight lines, so that thresholds are passed in the order that the paper has."""


def quadratic_errors(low, high):
    """Errors whose KL grows with the square of the length, each SAE's in its own measure."""
    factors = np.linspace(low, high, len(lee_worlds.SAES))
    heights = {
        f"sae-error:{sae}": lee_worlds.square(factor) for sae, factor in zip(lee_worlds.SAES, factors, strict=True)
    }
    return Results({"errors": lee_worlds.dataset(heights, lee_worlds.STEPS, "L2", lee_worlds.SAES, noise=0.2)}, {})


def straight_bases():
    rng = np.random.default_rng(0)
    lines = {
        base: slope * giglemiani_worlds.GRID * np.exp(rng.normal(0, 0.1, (giglemiani_worlds.N, 1)))
        for base, slope in SLOPES.items()
    }
    lengths = np.ones((1, 101, giglemiani_worlds.N))
    found = {f"plateaus-{base}": giglemiani_worlds.dataset({TARGET: line}, lengths) for base, line in lines.items()}
    return Results(found, {})


def quadratic(random_base):
    """Everything grows with the square of the distance; from a random base, by this factor more."""
    return heimersheim_worlds.results(heimersheim_worlds.World(at_random_base=random_base, noise=0.2))


QUADRATIC = {
    "heimersheim2024": [lambda: quadratic(1.0), lambda: quadratic(3.0)],
    "lee2024": [lambda: quadratic_errors(0.2, 0.2), lambda: quadratic_errors(0.05, 2.0)],
    "giglemiani2024": [straight_bases],
}
PLATEAUS = {
    "heimersheim2024": lambda: heimersheim_worlds.results(heimersheim_worlds.HOLDS),
    "lee2024": lambda: lee_worlds.WORLD,
    "giglemiani2024": lambda: giglemiani_worlds.results(
        giglemiani_worlds.PUBLISHED, giglemiani_worlds.NEARER, giglemiani_worlds.FLAT
    ),
}


def words(study, world):
    claims = [claim for claim in STUDIES[study].claims if claim.name in PLATEAU_CLAIMS[study]]
    return {verdict.claim.name: verdict.word for verdict in judge(claims, world)}


def test_they_are_all_that_speak_of_plateaus():
    speaking = {
        (study, claim.name)
        for study in STUDIES
        for claim in STUDIES[study].claims
        if "plateau" in f"{claim.name} {claim.sentence}".lower()
    }
    assert speaking <= set(NAMES)


@pytest.mark.parametrize("study", PLATEAU_CLAIMS)
def test_where_all_is_quadratic_none_is_supported(study):
    for world in QUADRATIC[study]:
        found = words(study, world())
        assert set(found) == set(PLATEAU_CLAIMS[study])
        assert set(found.values()) <= {"contradicted", "inconclusive"}, found


@pytest.mark.parametrize("study", PLATEAU_CLAIMS)
def test_where_there_are_plateaus_all_are_supported(study):
    assert words(study, PLATEAUS[study]()) == dict.fromkeys(PLATEAU_CLAIMS[study], "supported")
