"""What sequences say of a number: intervals that cover, and decisions that are seldom wrong."""

import math

import numpy as np
import pytest
from scipy import stats

from decision_coverage import CLEAR, WORLDS, decided, logs
from tiltmeter.analysis import estimates
from tiltmeter.analysis.estimates import (
    ABOVE_ONE,
    ABOVE_ZERO,
    BELOW_ZERO,
    MIN_SEQUENCES,
    Estimand,
    Estimate,
    Region,
    estimate,
)
from tiltmeter.analysis.t_intervals import careful_t
from tiltmeter.studies.estimands import correlation, difference, fraction, ks_gap, mean, ratio


@pytest.fixture
def fewer_draws(monkeypatch):
    """Enough for a standard error, and four times as fast, where many estimates are counted."""
    monkeypatch.setattr(estimates, "RESAMPLES", 249)


def mean_of(values, region=ABOVE_ZERO):
    return mean("mean", np.asarray(values, float), region)


def test_a_mean_is_weighed_as_a_careful_interval_has_it():
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    found = estimate(mean_of(values), comparisons=7)
    error = values.std(ddof=1) / math.sqrt(len(values))
    reach = stats.t.ppf(1 - 0.05 / 14, 8) * error
    assert found.value == pytest.approx(values.mean())
    assert found.joint_high - found.joint_low == pytest.approx(2 * reach, rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.usefixtures("fewer_draws")
def test_the_shown_interval_covers():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(120):
        pairs = rng.lognormal(0.0, 0.5, (40, 2)) * [2.0, 1.0]
        found = estimate(ratio("ratio", pairs[:, 0], pairs[:, 1]), 1, seed=trial)
        hits += found.low <= 2.0 <= found.high
    assert hits >= 0.87 * 120  # 95 % less what 40 skewed sequences and 120 trials cost


@pytest.mark.usefixtures("fewer_draws")
def test_what_is_decided_together_is_seldom_wrong():
    rng = np.random.default_rng(2)
    wrong = 0
    for trial in range(30):
        findings = [estimate(mean_of(rng.normal(0.0, 1.0, 30)), 10, seed=trial) for _ in range(10)]
        wrong += any(finding.decision != "undecided" for finding in findings)
    assert wrong <= 5  # 5 % of 30 is 1.5; without the correction some 12 would be


def test_where_a_number_lies():
    def found(low, high, region):
        return Estimate("x", (low + high) / 2, low, high, low, high, region, MIN_SEQUENCES)

    assert found(1.1, 1.3, ABOVE_ONE).decision == "inside"
    assert found(0.7, 0.9, ABOVE_ONE).decision == "outside"
    assert found(0.9, 1.1, ABOVE_ONE).decision == "undecided"
    similar = Region(0.8, 1.25)
    assert found(0.9, 1.1, similar).decision == "inside"
    assert found(0.7, 1.1, similar).decision == "undecided"
    assert found(1.3, 1.4, similar).decision == "outside"
    assert found(1.0, 1.0, ABOVE_ONE).decision == "undecided", "equal in every sequence: neither is greater"
    assert found(1.0, 1.0, similar).decision == "inside"
    assert found(1.3, 1.4, similar).distance < 0 < found(0.9, 1.1, similar).distance


def test_too_few_sequences_and_undefined_numbers_decide_nothing():
    assert estimate(mean_of([5.0] * (MIN_SEQUENCES - 1)), 1).decision is None
    undefined = Estimand("nothing", np.ones((20, 2)), lambda rows: math.nan, ABOVE_ZERO)
    assert estimate(undefined, 1).decision is None
    zero = ratio("to zero", np.ones(20), np.zeros(20))
    assert math.isnan(estimate(zero, 1).value)


def test_sequences_that_were_not_measured_are_left_out():
    values = np.array([1.0, 2.0, 3.0, 4.0] * 5)
    gaps = np.concatenate([values, [np.nan] * 7])
    one, other = estimate(mean_of(values), 1), estimate(mean_of(gaps), 1)
    assert one.n == other.n == 20
    assert (one.value, one.low, one.high) == (other.value, other.low, other.high)


def test_equal_rows_have_an_interval_of_no_width():
    found = estimate(mean_of([2.0] * 20), 3)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)
    assert found.decision == "inside"


def test_pairing_counts():
    rng = np.random.default_rng(3)
    shared = rng.normal(0.0, 5.0, 50)
    one, other = shared + 0.2 + rng.normal(0, 0.1, 50), shared + rng.normal(0, 0.1, 50)
    assert estimate(difference("paired", one, other), 1).decision == "inside"
    assert estimate(difference("unpaired", one, rng.permutation(other)), 1).decision == "undecided"


def test_a_correlation_is_over_all_tokens():
    rng = np.random.default_rng(4)
    one = rng.normal(size=(30, 20))
    other = one + rng.normal(size=(30, 20))
    other[3, 4] = np.nan
    known = ~np.isnan(other)
    found = estimate(correlation("r", one, other, ABOVE_ZERO), 1)
    assert found.value == pytest.approx(stats.pearsonr(one[known], other[known])[0])
    assert found.decision == "inside"


def test_distances_of_distributions():
    rng = np.random.default_rng(5)
    real, near, far = rng.normal(0, 1, 200), rng.normal(0.2, 1, 200), rng.normal(1, 1, 200)
    found = estimate(ks_gap("gap", real, near, far), 1)
    naive = stats.ks_2samp(real, far).statistic - stats.ks_2samp(real, near).statistic
    assert found.value == pytest.approx(naive)
    assert found.decision == "inside"


@pytest.mark.usefixtures("fewer_draws")
def test_a_ratio_is_as_seldom_too_low_as_too_high():
    """On the scale of the ratio itself, a large denominator makes it small and its error small: too often below."""
    rng = np.random.default_rng(6)
    below = above = 0
    for trial in range(150):
        one, other = rng.lognormal(0.0, 1.0, (2, 25))
        found = estimate(ratio("ratio", one, other, ABOVE_ONE), 2, seed=trial)
        below += found.decision == "outside"
        above += found.decision == "inside"
    assert below <= 6 and above <= 6  # of 150 each, 1.25 % by design


def test_a_part_of_a_whole_is_never_certain():
    always = estimate(fraction("part", np.ones(8 + MIN_SEQUENCES - 8), Region(0.8, math.inf)), 1)
    assert always.value == 1.0 and always.joint_low < 0.8
    assert always.decision == "undecided"
    assert estimate(fraction("part", np.ones(60), Region(0.7, math.inf)), 1).decision == "inside"
    half = estimate(fraction("part", np.repeat([0.0, 1.0], 200), Region(0.7, math.inf)), 1)
    interval = stats.binomtest(200, 400).proportion_ci(method="wilson")
    assert (half.joint_low, half.joint_high) == pytest.approx((interval.low, interval.high), abs=2e-3)
    assert half.decision == "outside"


def test_what_is_picked_as_the_largest_must_clear_more():
    quantity = mean_of(np.random.default_rng(7).normal(0.55, 1.0, 30))
    one, picked = estimate(quantity, 1), estimate(quantity._replace(picked_from=20), 1)
    assert picked.joint_low < one.joint_low and picked.joint_high > one.joint_high


def test_numbers_that_many_draws_do_not_have_decide_nothing():
    rows = np.concatenate([np.ones(20), [-9.0, -9.0]])
    rare = Estimand("log", rows, lambda r: math.log(r.mean()) if r.mean() > 0 else math.nan, BELOW_ZERO)
    assert estimate(rare, 1).decision == "undecided"


@pytest.mark.parametrize("world", ["0.3 ÷ 0.3", "1.5 ÷ 0.3", "0.3 ÷ 1.5", "Pareto ÷ 0.3"])
@pytest.mark.parametrize("n", [12, 48])
def test_ratios_at_the_border_are_seldom_decided(world, n):
    """At most 1.5 times as often as designed (and two standard errors); Student's interval decides 3 to 12 times as often."""
    runs, nominal = 2000, 0.025 / 4
    (row,) = decided(WORLDS[world], n, runs, (4,))
    assert max(row["above"], row["below"]) <= 1.5 * nominal + 2 * math.sqrt(1.5 * nominal / runs)


def test_clear_effects_are_decided():
    (row,) = decided(CLEAR["0.3, ratio 2"], 32, 500, (20,))
    assert row["above"] > 0.8


def test_the_deciding_interval_is_the_one_that_is_simulated():
    rng = np.random.default_rng(8)
    one, other = rng.lognormal(0.0, 1.0, (2, 32))
    found = estimate(ratio("ratio", one, other), 20)
    value, spread = logs(one[None], other[None], seed=0)
    low, high = careful_t(value, spread, 1 - 0.05 / 20)
    assert np.log([found.joint_low, found.joint_high]) == pytest.approx([low[0], high[0]], rel=0.02)


def test_a_correlation_has_an_interval_within_its_bounds():
    rng = np.random.default_rng(9)
    one = rng.normal(size=(10, 6))
    found = estimate(correlation("r", one, one + 0.05 * rng.normal(size=(10, 6)), ABOVE_ZERO), 40)
    assert -1 < found.joint_low < found.low < found.value < found.high < found.joint_high < 1
