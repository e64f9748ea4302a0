"""Orders are tested on all things, not on the extremes, and a perfect order is decided."""

import itertools

import numpy as np
import pytest

from lee_worlds import SAES, STEPS, dataset, square
from tiltmeter.analysis.estimates import estimate
from tiltmeter.studies.claims import judge
from tiltmeter.studies.estimands import ratio
from tiltmeter.studies.lee2024.claims import CLAIMS
from tiltmeter.studies.orders import in_order
from tiltmeter.studies.results import Results

MANY = 60
"""Comparisons, as many as a study has."""


def columns(sizes, noise=0.1, sequences=40, seed=0):
    luck = np.exp(noise * np.random.default_rng(seed).normal(size=(len(sizes), sequences)))
    return list(np.array(sizes)[:, None] * luck)


def test_it_is_kendalls_tau():
    given = columns([3.0, 2.0, 2.5, 1.0], noise=0.5)
    naive = [np.mean([one > other for one, other in itertools.combinations(row, 2)]) for row in np.stack(given, -1)]
    assert estimate(in_order("a", given), 1).value == pytest.approx(np.mean(naive))


@pytest.mark.parametrize("sequences", [10, 40])
def test_a_perfect_order_in_every_sequence_is_decided(sequences):
    found = estimate(in_order("a", columns([5.0, 4.0, 3.0, 2.0], noise=0.0, sequences=sequences)), MANY)
    assert found.value == 1.0
    assert found.joint_low < found.low < found.value, "but it is not certain"
    assert found.decision == "inside"


def test_the_opposite_order_is_outside_and_chance_is_neither():
    assert estimate(in_order("a", columns([2.0, 3.0, 4.0, 5.0])), MANY).decision == "outside"
    assert estimate(in_order("a", columns([2.0, 2.0, 2.0, 2.0])), MANY).decision == "undecided"


def test_extremes_do_not_make_an_order():
    """The sparsest is above the densest, but in between it goes the other way."""
    sizes = [3.0, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    given = columns(sizes, sequences=100)
    assert estimate(ratio("a", given[0], given[-1]), MANY).decision == "inside"
    assert estimate(in_order("a", given), MANY).decision == "outside"


def test_false_decisions_are_rare():
    """Where every order is equally likely, hardly any of many samples is decided, at the level of one comparison."""
    inside = [
        estimate(in_order("a", columns([1.0, 1.0, 1.0], sequences=12, seed=seed)), 1).decision == "inside"
        for seed in range(400)
    ]
    assert np.mean(inside) < 0.025


def family(latents, sizes, start):
    """SAEs of a maker: their features' sizes by L0."""
    names = [f"{latents}-l0-{start + 10 * at}" for at in range(len(sizes))]
    facts = {
        name: {"kind": None if latents == 1 else "local", "latents": latents, "l0": start + 10.0 * at}
        for at, name in enumerate(names)
    }
    return dict(zip(names, sizes, strict=True)), facts


def test_makers_are_never_mixed():
    """Within each family the order is as claimed; over both it would not be."""
    ours, our_facts = family(1, [1.4, 1.2, 1.0], 5)
    theirs, their_facts = family(2, [6.0, 5.0, 4.0], 100)
    sizes = {f"sae-feature:{name}": square(size) for name, size in (ours | theirs).items()}
    world = dataset(sizes, STEPS, "L2", list(SAES)[:1])
    world.attrs["saes"] = __import__("json").dumps(our_facts | their_facts)
    (verdict,) = (
        one for one in judge(CLAIMS, Results({"features": world}, {})) if one.claim.name == "features-sparser-stronger"
    )
    assert verdict.word == "supported"
    assert {one.place.series.partition(":")[0] for one in verdict.estimates} == {
        "unnamed objective, 1 latents",
        "local, 2 latents",
    }
    together = [np.asarray(world.kl.sel(direction=name)[-1]) for name in sizes]
    assert estimate(in_order("mixed", together), 1).decision == "outside"
