"""Intervals: against the formula they invert, and what an interval is for (coverage)."""

import numpy as np
import pytest
from scipy import stats

from interval_coverage import bca, coverage
from tiltmeter.analysis.intervals import mean_interval, student_interval
from tiltmeter.errors import TiltmeterError


def skewed(*shape, sigma=1.0, seed=0):
    return np.random.default_rng(seed).lognormal(sigma=sigma, size=shape)


def transformed(t, n, skew):
    """Hall 1992, section 2, as it stands there."""
    w = t / np.sqrt(n)
    return np.sqrt(n) * (w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * n))


def test_the_ends_are_where_student_or_halls_transformation_reaches_the_quantile():
    for curve in skewed(6, 20):
        found = mean_interval(curve, confidence=0.9)
        error, skew = curve.std(ddof=1) / np.sqrt(20), stats.skew(curve, bias=False)
        reach = stats.t.ppf(0.95, 19)
        for end, sign in ((found.low, 1), (found.high, -1)):
            t = (found.mean - end) / error
            both = sorted([sign * t, sign * transformed(t, 20, skew)])
            # one of the two is at the quantile, and neither is short of it
            assert both[0] == pytest.approx(reach, rel=1e-6)


def test_values_without_skewness_have_students_interval():
    values = np.array([-3.0, -1.0, 0.0, 1.0, 3.0]) + 7
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "n", "bca_has"), [("normal", 10, 0.92), ("exponential", 12, 0.90), ("lognormal", 10, 0.86)]
)
def test_small_samples_are_covered(name, n, bca_has):
    """Within two standard errors (of 2,000 runs) of 92 %; the bootstrap that was here before is far below."""
    assert coverage(name, n, runs=2000) >= 0.92 - 0.012
    assert coverage(name, n, bca, runs=500) < bca_has


def test_units_do_not_matter():
    values = skewed(3, 12)
    whole = mean_interval(values)
    for unit in (1e-150, 1e150):
        np.testing.assert_allclose(mean_interval(unit * values).high / unit, whole.high, rtol=1e-9)


def test_coverage_on_skewed_data():
    sets = skewed(1000, 60, sigma=0.8)
    truth = np.exp(0.8**2 / 2)
    interval = mean_interval(sets)
    covered = np.mean((interval.low <= truth) & (truth <= interval.high))
    assert 0.90 <= covered <= 0.97
    half = mean_interval(sets, confidence=0.5)
    assert 0.44 <= np.mean((half.low <= truth) & (truth <= half.high)) <= 0.56


def test_a_skewed_curve_has_a_lopsided_interval():
    interval = mean_interval(skewed(20, 60))
    assert np.all(interval.high - interval.mean > interval.mean - interval.low)


def test_equal_values_have_an_interval_without_width():
    interval = mean_interval(np.full((2, 5), 0.1))
    assert interval.low.tolist() == interval.high.tolist() == interval.mean.tolist() == [0.1, 0.1]


def test_too_few_sequences():
    nan = np.nan
    interval = mean_interval(np.array([[2.0, nan, nan], [nan, nan, nan], [1.0, 3.0, np.inf]]))
    np.testing.assert_array_equal(interval.mean, [2.0, nan, np.inf])
    np.testing.assert_array_equal(interval.low, [nan, nan, nan])
    np.testing.assert_array_equal(interval.high, [nan, nan, nan])
    assert interval.n.tolist() == [1, 0, 3]


def test_a_nan_is_a_sequence_left_out_of_its_own_curve():
    values = skewed(2, 3, 30)
    holed = values.copy()
    holed[1, 2, [4, 17]] = np.nan
    whole, left = mean_interval(values), mean_interval(holed)
    alone = mean_interval(np.delete(values[1, 2], [4, 17]))
    np.testing.assert_allclose([left.low[1, 2], left.high[1, 2]], [alone.low, alone.high], rtol=1e-12)
    assert left.n[1, 2] == 28
    np.testing.assert_allclose(left.low[0], whole.low[0], rtol=1e-12)


def test_shapes_and_repeatability():
    values = skewed(2, 4, 16)
    first, again = mean_interval(values), mean_interval(values)
    assert {field.shape for field in first} == {(2, 4)}
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert mean_interval(np.zeros((3, 0, 5))).mean.shape == (3, 0)
    assert mean_interval(np.zeros((3, 0))).n.tolist() == [0, 0, 0]


@pytest.mark.parametrize("confidence", [0.0, 95.0])
def test_refused(confidence):
    with pytest.raises(TiltmeterError):
        mean_interval(skewed(5), confidence)


def test_the_student_interval_is_scipys():
    values = np.random.default_rng(0).normal(1, 2, size=17)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.99)
    with_gaps = np.concatenate([values[:5], [np.nan], values[5:], [np.nan]])
    assert student_interval(with_gaps, 0.99) == pytest.approx((expected.low, expected.high))
    assert np.isnan(student_interval(np.array([1.0, np.nan]), 0.95)).all()
