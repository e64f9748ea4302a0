"""Sentences that compare directions: right about which is above, seldom wrong where none is."""

import re

import numpy as np
import pytest

from tiltmeter.analysis import curves
from tiltmeter.analysis.estimates import MIN_SEQUENCES
from tiltmeter.studies.comparisons import compared_at_nearest, means_at_nearest

NAMES = ("real-difference", "real-mixture", "isotropic")
PAIRS = (("real-difference", "real-mixture"), ("real-mixture", "isotropic"))


def standard(sequences, seed=0):
    """Noise of exactly mean zero and standard error one."""
    noise = np.random.default_rng(seed).normal(size=sequences)
    noise -= noise.mean()
    return noise / noise.std(ddof=1) * np.sqrt(sequences)


def synthetic(kl, sequences=40):
    """Curves whose KL at length 5 is given by direction (otherwise 1); elsewhere it is the opposite."""
    values = np.ones((len(NAMES), 3, sequences))
    for index, name in enumerate(NAMES):
        values[index] = -np.asarray(kl.get(name, 1.0))
        values[index, 1] = kl.get(name, 1.0)
    axes = curves.Axes(NAMES, (0.0, 5.0, 10.0), "L2", range(sequences))
    tokens = np.full((len(NAMES), sequences), 8)
    return curves.build({"kl": values, "length": np.zeros_like(values)}, tokens, axes, {})


def verdict(kl, sequences=40):
    said = compared_at_nearest(synthetic(kl, sequences), "kl", PAIRS, [5.2])
    (found,) = re.findall(r": real-difference (above|below|indistinguishable from) real-mixture \(", said)
    return found


def test_above_below_and_indistinguishable():
    noise = standard(40)
    assert verdict({"real-difference": 5 + noise / 10, "real-mixture": 4.0}) == "above"
    assert verdict({"real-difference": 4 + noise / 10, "real-mixture": 5.0}) == "below"
    assert verdict({"real-difference": 4.5 + noise, "real-mixture": 4.5}) == "indistinguishable from"
    assert verdict({}) == "indistinguishable from"


def test_the_comparison_is_within_sequences():
    """The sequences differ far more than the directions, which differ alike in each."""
    luck = 100 + 10 * standard(40, 1)
    assert verdict({"real-difference": luck + 0.1 + 0.01 * standard(40), "real-mixture": luck}) == "above"
    assert verdict({"real-difference": luck[::-1] + 0.1, "real-mixture": luck}) == "indistinguishable from"


def test_documents_count():
    noise = np.repeat(standard(20), 2)
    given = synthetic({"real-difference": 4.95 + noise / 2, "real-mixture": 4.0 + 0 * noise})
    few, many = (given.assign_coords(document=("sequence", np.arange(40) // each)) for each in (8, 1))
    assert compared_at_nearest(few, "kl", PAIRS, [5]).startswith("5 documents are too few to compare directions")
    assert "real-difference above real-mixture" in compared_at_nearest(many, "kl", PAIRS, [5])
    pairs = given.assign_coords(document=("sequence", np.arange(40) // 2))
    assert "real-difference indistinguishable from real-mixture" in compared_at_nearest(pairs, "kl", PAIRS, [5])


@pytest.mark.parametrize(("errors", "said"), [(2.1, "indistinguishable from"), (2.6, "above")])
def test_all_comparisons_must_hold_together(errors, said):
    """A gap of 2.1 standard errors would do for one comparison, not for the luckier of two."""
    assert verdict({"real-difference": 9 + errors + standard(400), "real-mixture": 9.0}, 400) == said


def test_directions_that_do_not_differ_are_seldom_distinguished():
    rng = np.random.default_rng(0)
    distinguished = 0
    for _ in range(60):
        said = compared_at_nearest(synthetic({name: rng.gamma(2, size=40) for name in NAMES}), "kl", PAIRS, [5.0])
        distinguished += said.count("indistinguishable from") < len(PAIRS)
    assert distinguished <= 8


def test_values_and_intervals_are_said():
    said = compared_at_nearest(
        synthetic({"real-difference": 14 + standard(400), "real-mixture": 9.0}, 400), "kl", PAIRS, [5.0]
    )
    (found,) = re.findall(r"real-difference above real-mixture \((.+?) and (.+?); (.+?) to (.+?)\)", said)
    assert [float(number) for number in found] == pytest.approx([14, 9, 5 - 2.25, 5 + 2.25], abs=0.1)
    assert said.startswith("Mean KL(clean ‖ perturbed). At length 5: ")


def test_a_sequence_that_was_not_measured_is_left_out():
    lost = 5 + standard(40) / 10
    lost[:3] = np.nan
    assert verdict({"real-difference": lost, "real-mixture": 4.0}) == "above"


def test_few_sequences_say_nothing():
    few = compared_at_nearest(synthetic({"real-difference": 9.0}, MIN_SEQUENCES - 1), "kl", PAIRS, [5.0])
    assert few == f"{MIN_SEQUENCES - 1} sequences are too few to compare directions; measure at least {MIN_SEQUENCES}."
    assert "above" in compared_at_nearest(synthetic({"real-difference": 9.0}, MIN_SEQUENCES), "kl", PAIRS, [5.0])


def test_the_nearest_measured_step_is_used_and_stated():
    said = compared_at_nearest(synthetic({"real-difference": 9.0}), "kl", PAIRS, [5.2, 9.0])
    assert re.findall(r"At length (\d+):", said) == ["5", "10"]


def test_means_are_listed():
    assert (
        means_at_nearest(synthetic({"isotropic": 3.0}), "kl", ("isotropic", "real-mixture"), 5.0)
        == "isotropic 3, real-mixture 1"
    )
