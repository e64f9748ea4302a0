"""Ranks and p-values of a curve among draws."""

import numpy as np
import pytest
from scipy import stats

from tiltmeter.analysis.ranks import Extremes, extreme_rank_p, extremes, percentile, rank_p, ratio_of_means


def naive_p(curve, draws):
    """By the definition, one curve at a time."""

    def signature(one):
        others = [curve, *draws]
        ranks = []
        for step, value in enumerate(one):
            up = sum(other[step] >= value for other in others)
            down = sum(other[step] <= value for other in others)
            ranks.append(min(up, down))
        return sorted(ranks)

    own = signature(curve)
    return sum(signature(one) <= own for one in [curve, *draws]) / (len(draws) + 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    draws, curve = rng.normal(size=(19, 4)).round(1), rng.normal(size=4).round(1)  # rounded: with ties
    assert extreme_rank_p(curve, draws) == naive_p(curve, draws)


def test_p_values_of_an_exchangeable_curve_are_uniform():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        curves = np.exp(rng.normal(size=(20, 1)) + 0.3 * rng.normal(size=(20, 5)).cumsum(1))
        found.append(extreme_rank_p(curves[0], curves[1:]))
    assert set(np.round(found, 6)) <= set(np.round(np.arange(1, 21) / 20, 6))
    for level in (0.05, 0.1, 0.5):  # within three standard errors, and never above by more
        assert abs(np.mean(np.array(found) <= level) - level) < 3 * np.sqrt(level * (1 - level) / 1000)


def test_a_curve_that_stands_out_is_found_on_either_side():
    draws = np.random.default_rng(0).normal(size=(99, 6)) / 3 + np.random.default_rng(1).normal(size=(99, 1))
    curve = np.zeros(6)
    assert extreme_rank_p(curve, draws) > 0.5
    assert extreme_rank_p(curve + 9, draws) == 1 / 100 and extremes(curve + 9, draws) == (True, False, 5)
    assert extreme_rank_p(curve - 9, draws) == 1 / 100 and extremes(curve - 9, draws) == (False, True, 5)
    curve[4] = 9  # at one step alone: at most two curves a step can be as extreme
    assert extreme_rank_p(curve, draws) <= 12 / 100 and extremes(curve, draws) == (True, False, 4)


def test_a_curve_may_stand_out_on_both_sides():
    draws = np.arange(1.0, 20.0)[:, None].repeat(4, 1)
    assert extremes(np.array([99.0, 10.0, -9.0, 10.0]), draws) == Extremes(above=True, below=True, last=2)


def test_curves_with_nan_have_no_ranks():
    draws = np.random.default_rng(0).normal(size=(9, 2))
    draws[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        extreme_rank_p(np.zeros(2), draws)


def test_equal_curves_are_not_extreme():
    assert extreme_rank_p(np.ones(3), np.ones((9, 3))) == 1


def test_one_value_among_draws():
    draws = np.arange(99.0)
    assert percentile(98.5, draws) == 100 and percentile(49.0, draws) == 50 and percentile(-1.0, draws) == 0
    assert rank_p(200.0, draws) == rank_p(-5.0, draws) == pytest.approx(2 / 100)
    assert rank_p(49.0, draws) == 1


def test_a_ratio_of_means_is_paired_and_covers():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(150):
        difficulty = np.exp(rng.normal(size=40))  # of the sequences, shared by all
        values = 2 * difficulty * rng.exponential(size=40)
        draws = np.exp(0.3 * rng.normal(size=(50, 1)) - 0.045) * difficulty * rng.exponential(size=(50, 40))
        value, low, high = ratio_of_means(values, draws, seed)
        assert value == pytest.approx(values.mean() / draws.mean())
        covered += low <= 2 <= high
    assert stats.binom.cdf(covered, 150, 0.9) > 0.01


def test_ratios_that_are_none():
    assert np.isnan(ratio_of_means(np.array([np.nan]), np.ones((3, 1)))).all()
    assert np.isnan(ratio_of_means(np.ones(4), np.zeros((3, 4)))).all()
    values = np.array([1.0, 3.0, np.nan])
    assert ratio_of_means(values, np.array([[1.0, 1.0, 9.0]]))[0] == 2
