"""One margin for all studies: every claim's region is one of a few, or a stated exception."""

import pytest

import giglemiani_worlds
import gurnee_worlds
import heimersheim_worlds
import lee_worlds
from tiltmeter.analysis.estimates import Region, estimate
from tiltmeter.studies import STUDIES
from tiltmeter.studies.estimands import odds_ratio, ratio
from tiltmeter.studies.margins import AS_OFTEN, EXCEPTIONS, LESS, MARGIN, MORE, MORE_OFTEN, OF_CLAIMS, SIMILAR

WORLDS = {
    "heimersheim2024": lambda: heimersheim_worlds.results(heimersheim_worlds.HOLDS),
    "gurnee2024": gurnee_worlds.results,
    "lee2024": lambda: lee_worlds.WORLD,
    "giglemiani2024": lambda: giglemiani_worlds.results(
        giglemiani_worlds.PUBLISHED, giglemiani_worlds.NEARER, giglemiani_worlds.FLAT
    ),
}


def regions(study):
    """The regions of each claim of a study."""
    world = WORLDS[study]()
    return {claim.name: {one.region for one in claim.estimands(world)} for claim in STUDIES[study].claims}


@pytest.mark.parametrize("study", WORLDS)
def test_every_claim_uses_the_margins_or_is_a_stated_exception(study):
    assert set(WORLDS) == set(STUDIES)
    own = {f"{study}/{name}" for name, found in regions(study).items() if not found <= set(OF_CLAIMS)}
    assert own == {name for name in EXCEPTIONS if name.startswith(f"{study}/")}


def test_more_similar_and_less_leave_no_gap_and_do_not_overlap():
    assert (LESS.high, MORE.low) == (SIMILAR.low, SIMILAR.high) == (1 / MARGIN, MARGIN)
    assert MORE_OFTEN.low == AS_OFTEN.high
    assert MORE_OFTEN.low / (1 - MORE_OFTEN.low) == pytest.approx(MARGIN)
    assert AS_OFTEN.low / (1 - AS_OFTEN.low) == pytest.approx(1 / MARGIN)


@pytest.mark.parametrize("times", [0.5, 0.9, 1.1, 1.2, 1.3, 3.0])
def test_a_precise_ratio_is_exactly_one_of_them(times):
    """In particular 1.1 to 1.2, which used to be both more and similar."""
    from numpy.random import default_rng

    luck = default_rng(0).normal(1, 0.01, (2, 50))
    decisions = [estimate(ratio("a", times * luck[0], luck[1], region), 3).decision for region in (LESS, SIMILAR, MORE)]
    assert sorted(decisions) == ["inside", "outside", "outside"]


def test_odds_of_what_always_happens_are_finite():
    import numpy as np

    always, half = np.ones(40), np.tile([0.0, 1.0], 20)
    found = estimate(odds_ratio("a", always, half), 1)
    assert found.value == pytest.approx((40.5 / 0.5) / 1.0)
    assert estimate(odds_ratio("a", half, half[::-1]), 1).decision == "undecided"


def test_exceptions_have_reasons():
    assert all(EXCEPTIONS.values())
    assert Region(0.67, 1.5) not in OF_CLAIMS, "close is similar"
