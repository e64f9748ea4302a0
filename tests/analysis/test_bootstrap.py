"""Intervals: against scipy's own, a naive loop, and what an interval is for (coverage)."""

import warnings

import numpy as np
import pytest
from scipy import stats

from tiltmeter.analysis.bootstrap import bootstrap_mean, paired_interval
from tiltmeter.errors import TiltmeterError


def skewed(*shape, sigma=1.0, seed=0):
    return np.random.default_rng(seed).lognormal(sigma=sigma, size=shape)


def test_equals_scipys_bca_of_the_plain_mean():
    values = skewed(3, 40)
    ours = bootstrap_mean(values, confidence=0.9, resamples=500, seed=7)
    for curve in range(3):
        oracle = stats.bootstrap(
            (values[curve],), np.mean, confidence_level=0.9, n_resamples=500, rng=np.random.default_rng(7)
        ).confidence_interval
        assert ours.low[curve] == pytest.approx(oracle.low, rel=1e-12)
        assert ours.high[curve] == pytest.approx(oracle.high, rel=1e-12)
        assert ours.mean[curve] == pytest.approx(values[curve].mean(), rel=1e-15)


def test_a_symmetric_curve_agrees_with_a_naive_percentile_loop():
    values = np.random.default_rng(3).normal(size=200)
    rng = np.random.default_rng(99)
    means = [rng.choice(values, 200).mean() for _ in range(20_000)]
    ours = bootstrap_mean(values, resamples=20_000)
    tolerance = 0.12 * values.std() / np.sqrt(200)
    assert ours.low == pytest.approx(np.quantile(means, 0.025), abs=tolerance)
    assert ours.high == pytest.approx(np.quantile(means, 0.975), abs=tolerance)


def test_coverage_on_skewed_data():
    sets = skewed(1000, 60, sigma=0.8)
    truth = np.exp(0.8**2 / 2)
    interval = bootstrap_mean(sets, resamples=1000)
    covered = np.mean((interval.low <= truth) & (truth <= interval.high))
    assert 0.90 <= covered <= 0.97
    half = bootstrap_mean(sets, confidence=0.5, resamples=1000)
    assert 0.44 <= np.mean((half.low <= truth) & (truth <= half.high)) <= 0.56


def test_a_skewed_curve_has_a_lopsided_interval():
    interval = bootstrap_mean(skewed(20, 60))
    assert np.all(interval.high - interval.mean > interval.mean - interval.low)


def test_equal_values_have_an_interval_without_width():
    interval = bootstrap_mean(np.full((2, 5), 0.1))
    assert interval.low.tolist() == interval.high.tolist() == interval.mean.tolist() == [0.1, 0.1]


def test_where_bca_is_undefined_the_percentile_interval_stands_in():
    values = np.array([0.0, 0.0, 1.0])
    seed = next(s for s in range(200) if np.isnan(scipys_bca(values, s)).any())
    drawn = values[np.random.default_rng(seed).integers(0, 3, (2, 3))].mean(axis=-1)
    ours = bootstrap_mean(values, resamples=2, seed=seed)
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(drawn, [0.025, 0.975]), atol=1e-15)


def scipys_bca(values, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = stats.bootstrap((values,), np.mean, n_resamples=2, rng=np.random.default_rng(seed))
    return np.array(result.confidence_interval)


def test_too_few_sequences():
    nan = np.nan
    interval = bootstrap_mean(np.array([[2.0, nan, nan], [nan, nan, nan], [1.0, 3.0, np.inf]]))
    np.testing.assert_array_equal(interval.mean, [2.0, nan, np.inf])
    np.testing.assert_array_equal(interval.low, [nan, nan, nan])
    np.testing.assert_array_equal(interval.high, [nan, nan, nan])
    assert interval.n.tolist() == [1, 0, 3]


def test_a_nan_is_a_sequence_left_out_of_its_own_curve():
    values = skewed(2, 3, 30)
    holed = values.copy()
    holed[1, 2, [4, 17]] = np.nan
    whole, left = bootstrap_mean(values), bootstrap_mean(holed)
    alone = bootstrap_mean(np.delete(values[1, 2], [4, 17]))
    np.testing.assert_allclose([left.low[1, 2], left.high[1, 2]], [alone.low, alone.high], rtol=1e-12)
    assert left.n[1, 2] == 28
    np.testing.assert_allclose(left.low[0], whole.low[0], rtol=1e-12)


def test_shapes_and_repeatability():
    values = skewed(2, 4, 16)
    first, again, other = bootstrap_mean(values), bootstrap_mean(values), bootstrap_mean(values, seed=1)
    assert {field.shape for field in first} == {(2, 4)}
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first.low, other.low)
    assert bootstrap_mean(np.zeros((3, 0, 5))).mean.shape == (3, 0)
    assert bootstrap_mean(np.zeros((3, 0))).n.tolist() == [0, 0, 0]


def test_blocks_do_not_change_the_numbers(monkeypatch):
    values = skewed(7, 20)
    whole = bootstrap_mean(values, resamples=100)
    monkeypatch.setattr("tiltmeter.analysis.bootstrap._NUMBERS_AT_ONCE", 200)
    np.testing.assert_allclose(bootstrap_mean(values, resamples=100).low, whole.low, rtol=1e-12)


@pytest.mark.parametrize("settings", [{"confidence": 0.0}, {"confidence": 95.0}, {"resamples": 0}])
def test_refused(settings):
    with pytest.raises(TiltmeterError):
        bootstrap_mean(skewed(5), **settings)


def test_the_paired_interval_is_scipys():
    values = np.random.default_rng(0).normal(1, 2, size=17)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.99)
    with_gaps = np.concatenate([values[:5], [np.nan], values[5:], [np.nan]])
    assert paired_interval(with_gaps, 0.99) == pytest.approx((expected.low, expected.high))
    assert np.isnan(paired_interval(np.array([1.0, np.nan]), 0.95)).all()


def test_at_extreme_levels_the_paired_interval_covers_where_the_bootstrap_does_not():
    """Twelve comparisons of 20 normal values, at the level of Bonferroni: any miss of zero is a family's miss."""
    rng = np.random.default_rng(1)
    level, families = 1 - 0.05 / 12, [rng.normal(size=(12, 20)) for _ in range(150)]
    student = [any(low > 0 or high < 0 for low, high in (paired_interval(v, level) for v in one)) for one in families]
    found = [bootstrap_mean(one, level) for one in families]
    bootstrap = [bool(((one.low > 0) | (one.high < 0)).any()) for one in found]
    assert np.mean(student) < 0.1
    assert np.mean(bootstrap) > np.mean(student) + 0.03
