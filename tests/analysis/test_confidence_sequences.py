"""Time-uniform intervals: against the Bayes factor by quadrature, their limit, and what they promise (coverage)."""

import numpy as np
import pytest
from scipy import stats

from stopping_coverage import ending, simulate, spikes, student
from tiltmeter.analysis import confidence_sequences
from tiltmeter.analysis.confidence_sequences import FIRST_LOOK, TUNED_FOR, half_width, sequential_mean
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.rng import random_order


def factor(n, deviation=1.0, confidence=0.95):
    return float(half_width(np.array(n), np.array(deviation), confidence))


@pytest.mark.parametrize("n", [FIRST_LOOK, 1000, 20_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_at_its_ends_the_bayes_factor_is_one_over_alpha(n, confidence):
    """Normal likelihoods of the null and of effects δ ~ N(0, g), summed over δ and over the deviation σ, p(σ) = 1/σ."""
    g = confidence_sequences._effect(1 - confidence) / TUNED_FOR
    mean = factor(n, 1.0, confidence)
    sigma = np.exp(np.linspace(-9, 9, 2001) / np.sqrt(n))[:, None]
    effect = mean + np.linspace(-12, 12, 2001) / np.sqrt(n)

    def log_likelihood(effect):
        return -n * np.log(sigma) - (n - 1) / (2 * sigma**2) - n * (mean / sigma - effect) ** 2 / 2

    peak = log_likelihood(effect).max()
    weights = stats.norm.pdf(effect, scale=np.sqrt(g)) * (effect[1] - effect[0])
    found = (np.exp(log_likelihood(effect) - peak) @ weights).sum() / np.exp(log_likelihood(0.0) - peak).sum()
    assert found == pytest.approx(1 / (1 - confidence), rel=1e-6)


def test_the_limit_is_the_asymptotic_confidence_sequence():
    n, rho2 = 10**6, confidence_sequences._effect(0.05) / TUNED_FOR
    limit = np.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * np.log(np.sqrt(n * rho2 + 1) / 0.05))
    assert factor(n) == pytest.approx(limit, rel=1e-5)
    assert factor(FIRST_LOOK) > 1.01 * np.sqrt(
        2 * (FIRST_LOOK * rho2 + 1) / (FIRST_LOOK**2 * rho2) * np.log(np.sqrt(FIRST_LOOK * rho2 + 1) / 0.05)
    )


def test_no_other_tuning_is_narrower_by_more_than_a_tenth(monkeypatch):
    numbers = (128, 250, 500, 1000, 2000, 4000, 8000)
    ours = np.array([factor(n) for n in numbers])
    others = []
    for tuned in np.geomspace(20, 50_000, 60):
        monkeypatch.setattr(confidence_sequences, "TUNED_FOR", tuned)
        others.append([factor(n) for n in numbers])
    best = np.min(others, axis=0)
    assert (ours <= 1.1 * best).all()
    assert ours[2] == pytest.approx(best[2], rel=1e-3)


RUNS = 4000
ERROR = 2 * np.sqrt(0.05 * 0.95 / RUNS)
"""Two standard errors of a coverage of 95 %."""


@pytest.mark.parametrize(
    ("sigma", "goal", "most"), [(0.5, 0.1, 1024), (1.0, 0.2, 1024), (1.5, 0.2, 4096), (1.5, 0.5, 1024)]
)
def test_where_a_run_stops_the_interval_holds_the_mean(sigma, goal, most):
    """And the control: Student's interval, for a fixed number, does not, once values are skewed."""
    looks = simulate(sigma, most, RUNS, seed=1)
    ours, naive = ending(looks, goal, half_width), ending(looks, goal, student)
    assert ours.covered >= 0.95
    assert naive.sequences < ours.sequences < most
    if sigma >= 1:
        assert naive.covered < 0.95 - ERROR


@pytest.mark.parametrize("sigma", [0, 0.25, 0.5])
def test_all_looks_hold_the_mean_at_once(sigma):
    """And the control: looked at after every shard, Student's interval misses sooner or later."""
    looks = simulate(sigma, 2048, RUNS, seed=2)
    assert ending(looks, 0.5, half_width).always >= 0.95
    assert ending(looks, 0.5, student).always < 0.75


def skewed(*shape, seed=0):
    return np.random.default_rng(seed).lognormal(size=shape)


def test_a_mean_stands_in_the_middle_of_its_interval():
    values = skewed(2, 3, 300)
    found = sequential_mean(values)
    np.testing.assert_allclose(found.mean, values.mean(-1), rtol=1e-14)
    half = values.std(-1, ddof=1) * factor(300)
    np.testing.assert_allclose(found.high, values.mean(-1) + half, rtol=1e-12)
    np.testing.assert_allclose(found.low, values.mean(-1) - half, rtol=1e-12)
    assert (found.n == 300).all()
    bootstrap = stats.t.ppf(0.975, 299) * values.std(-1, ddof=1) / np.sqrt(300)
    assert (half > 1.4 * bootstrap).all()


def test_a_sequence_that_was_not_measured_is_left_out():
    values = skewed(2, 300)
    values[1, [3, 77]] = np.nan
    found, alone = sequential_mean(values), sequential_mean(np.delete(values[1], [3, 77]))
    np.testing.assert_allclose([part[1] for part in found], alone, rtol=1e-12)
    np.testing.assert_allclose([part[0] for part in found], sequential_mean(values[0]))


def test_too_few_sequences_have_no_interval():
    values = skewed(4, FIRST_LOOK)
    values[1, 0] = np.nan
    values[2] = np.nan
    values[3, 0] = np.inf
    found = sequential_mean(values)
    assert found.n.tolist() == [FIRST_LOOK, FIRST_LOOK - 1, 0, FIRST_LOOK]
    assert np.isnan(found.mean).tolist() == [False, False, True, False]
    assert np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [False, True, True, True]
    assert found.mean[3] == np.inf


def test_equal_values_have_an_interval_without_width():
    found = sequential_mean(np.full((2, 200), 0.1))
    np.testing.assert_allclose([found.low, found.high], 0.1, rtol=1e-14)
    assert sequential_mean(np.zeros(200)).high == 0


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(TiltmeterError, match="give a number between 0 and 1"):
        sequential_mean(skewed(200), confidence)


def test_the_order_is_a_permutation_that_the_seed_decides():
    order = random_order(1000, 0)
    assert sorted(order) == list(range(1000))
    assert order == random_order(1000, 0) != random_order(1000, 1)
    assert order != tuple(range(1000))


def test_every_sequence_is_as_likely_to_come_first_and_neighbours_as_likely_together():
    first = np.zeros((2000, 20))
    for seed in range(2000):
        first[seed, list(random_order(20, seed)[:5])] = 1
    assert stats.chisquare(first.sum(0)).pvalue > 1e-3
    together = (first[:, 1:] * first[:, :-1]).mean(0)
    np.testing.assert_allclose(together, 5 * 4 / (20 * 19), atol=4 * np.sqrt(0.05 * 0.95 / 2000))


def test_equal_values_do_not_stop_a_run_before_a_spike_was_seen():
    """1 in 100 values has a spike: 28 % of runs have none among the first 128. With noise nothing can tell, as stated."""
    seen, hidden = (ending(spikes(0.01, noise, 300, most=1024), 0.5, half_width).covered for noise in (0.0, 0.1))
    assert seen >= 0.94
    assert hidden < 0.8
