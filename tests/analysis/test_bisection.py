"""Bisection: what a scan of all steps gives where a curve passes once, and only what is promised where it does not."""

import math

import numpy as np
import pytest

from tiltmeter.analysis.bisection import CrossingTarget, find_crossings, guard_steps
from tiltmeter.analysis.shapes import crossing, relative
from tiltmeter.errors import TiltmeterError

GUARDS = (0, 1, 4, 6, 50, 1000)
STEPS = np.linspace(0.0, 20.0, 41)


class Tabled:
    """Curves that are written down, and how often each was asked for."""

    def __init__(self, values, steps=STEPS):
        self.values, self.steps, self.asked = np.asarray(values, float), steps, []

    def __call__(self, rows, at):
        self.asked += [*zip(rows.tolist(), at.tolist(), strict=True)]
        index = np.searchsorted(self.steps, at)
        assert (self.steps[index] == at).all()
        return self.values[rows, index]

    def found(self, **goal):
        return find_crossings(self, len(self.values), self.steps, CrossingTarget(**goal))


def growing(curves, steps, seed=0):
    """Random curves that never fall, some with a jump; every fourth stays low."""
    rises = np.random.default_rng(seed).exponential(size=(curves, steps)) ** 3
    rises[::4] /= 30
    return np.cumsum(rises, axis=1) / steps


def verified(found, values, threshold, steps):
    """Check what is promised of any curve at all."""
    for row in range(len(values)):
        low, high = found.below[row], found.above[row]
        if found.censored[row]:
            assert low == steps[-1] and math.isnan(high) and values[row, -1] <= threshold
        elif math.isnan(low):
            assert high == steps[0] == found.at[row] and values[row, 0] > threshold
        else:
            below, above = np.searchsorted(steps, [low, high])
            assert above == below + 1 and low <= found.at[row] <= high
            assert values[row, below] == found.value_below[row] <= threshold
            assert values[row, above] == found.value_above[row] > threshold


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("count", [1, 2, 3, 8, 41, 101])
def test_growing_curves_cross_where_a_scan_says(guard, count):
    steps = np.cumsum(np.random.default_rng(1).random(count) + 0.1)
    values = growing(400, count)
    scan, curves = crossing(values, steps, 1.5), Tabled(values, steps)
    found = curves.found(threshold=1.5, guard=guard)
    np.testing.assert_array_equal(found.at, scan.value)
    np.testing.assert_array_equal(found.censored, scan.censored)
    verified(found, values, 1.5, steps)
    assert count < 3 or (0 < scan.censored.sum() < 400 and (found.below[~scan.censored] > steps[0]).any())


def test_a_curve_may_fall_as_long_as_it_passes_once():
    values = growing(400, 41) + 0.3 * np.random.default_rng(2).normal(size=(400, 41))
    above = values > 1.5
    once = (np.diff(above.astype(int)) != 0).sum(1) + above[:, 0] == above[:, -1]
    assert once.sum() > 50 and (np.diff(values[once]) < 0).any(1).all()
    np.testing.assert_array_equal(
        Tabled(values[once]).found(threshold=1.5).at, crossing(values[once], STEPS, 1.5).value
    )


@pytest.mark.parametrize("guard", GUARDS)
def test_whatever_the_curve_does_what_is_found_is_an_upward_crossing(guard):
    values = np.random.default_rng(3).normal(size=(500, 41))
    found = Tabled(values).found(threshold=1.0, guard=guard)
    verified(found, values, 1.0, STEPS)
    scan = crossing(values, STEPS, 1.0)
    assert (found.at >= scan.value)[~found.censored].all()  # the first, or a later one
    assert (np.array_equal(found.at, scan.value, equal_nan=True)) == (guard >= 41)


def test_a_curve_that_comes_back_below():
    """Up at 2, down at 6, up for good at 15; and one that is above only from 2 to 6."""
    level = np.where((STEPS >= 2) & (STEPS < 6), 3.0, 0.0)
    values = np.stack([np.where(STEPS >= 15, 3.0, level), level])
    scan = crossing(values, STEPS, 1.0)
    assert [*scan.value] == pytest.approx([1.5 + 0.5 / 3] * 2)
    halved = Tabled(values).found(threshold=1.0, guard=0)
    assert halved.at[0] == pytest.approx(14.5 + 0.5 / 3)  # not the first
    assert [*halved.censored] == [False, True]  # and one that is not seen at all
    guarded = Tabled(values).found(threshold=1.0, guard=6)  # a step every 3
    np.testing.assert_array_equal(guarded.at, scan.value)


@pytest.mark.parametrize("guard", [0, 3, 6])
@pytest.mark.parametrize("count", [1, 2, 20, 101])
def test_it_costs_as_many_points_as_halving_takes_and_none_twice(guard, count):
    steps = np.arange(count, dtype=float)
    curves = Tabled(growing(200, count), steps)
    found = curves.found(threshold=1.5, guard=guard)
    assert len(set(curves.asked)) == len(curves.asked) == found.points.sum()
    pieces = np.diff([-1, *guard_steps(count, guard), count])
    assert (found.points <= len(pieces) - 1 + math.ceil(math.log2(max(pieces)))).all()
    assert guard or (found.points <= math.ceil(math.log2(count + 1))).all()


def test_the_guard_lies_inside_the_path_until_it_is_all_of_it():
    assert guard_steps(101, 0) == []
    assert guard_steps(101, 4) == [19, 40, 60, 81]
    assert guard_steps(5, 5) == guard_steps(5, 500) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tolerance", [2.0, 0.5, 0.1, 1e-3, 1e-5])
def test_the_tolerance_closes_in_on_a_closed_form(tolerance):
    power = np.array([1.0, 2.0, 3.0, 0.5, 4.0])
    scale = np.array([1.0, 0.03, 0.01, 0.7, 1e-9])
    true = (0.5 / scale) ** (1 / power)
    found = find_crossings(
        lambda rows, at: scale[rows] * at ** power[rows], 5, STEPS, CrossingTarget(threshold=0.5, tolerance=tolerance)
    )
    assert [*found.censored] == [False] * 4 + [True]
    width = (found.above - found.below)[:4]
    assert (width <= min(tolerance, 0.5) + 1e-12).all() and (width > min(tolerance, 0.5) / 2 - 1e-12).all()
    assert ((found.below <= true) & (true <= found.above))[:4].all()
    assert (np.abs(found.at - true)[:4] <= width).all()
    assert abs(found.at[0] - 0.5) < 1e-12  # a straight line is read to the last digit
    extra = max(0, math.ceil(math.log2(0.5 / tolerance)))
    coarse = find_crossings(lambda rows, at: scale[rows] * at ** power[rows], 5, STEPS, CrossingTarget(threshold=0.5))
    assert [*(found.points - coarse.points)] == [extra] * 4 + [0]


@pytest.mark.parametrize("guard", [0, 6, 41])
def test_a_fraction_is_of_the_last_value(guard):
    values = growing(300, 41)
    values[7] = 0.0
    values[8] = -1.0
    found, scan = Tabled(values).found(fraction=0.4, guard=guard), crossing(relative(values), STEPS, 0.4)
    np.testing.assert_array_equal(found.at, scan.value)
    assert not found.censored.any() and np.isnan(found.at[7:9]).all()


def test_what_cannot_be_measured_is_neither_crossed_nor_censored():
    values = growing(6, 41)
    values[2] = np.nan
    curves = Tabled(values)
    found = curves.found(threshold=1.5)
    assert not found.censored[2] and all(math.isnan(part[2]) for part in (found.at, found.below, found.above))
    assert found.points[2] == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "give a threshold or a fraction"),
        ({"threshold": 1.0, "fraction": 0.5}, "only one"),
        ({"threshold": math.nan}, "finite"),
        ({"fraction": 1.0}, "less than 1"),
        ({"fraction": 0.0}, "greater than 0"),
        ({"threshold": 1.0, "guard": -1}, "greater than or equal to 0"),
        ({"threshold": 1.0, "tolerance": 0.0}, "greater than 0"),
    ],
)
def test_wrong_goals_are_refused(wrong, words):
    with pytest.raises(TiltmeterError, match=words):
        CrossingTarget(**wrong)


def test_a_tolerance_below_what_numbers_can_tell_ends():
    found = find_crossings(
        lambda rows, at: at**2, 3, np.linspace(0.0, 100.0, 11), CrossingTarget(threshold=2.0, tolerance=1e-30)
    )
    np.testing.assert_allclose(found.at, math.sqrt(2), rtol=1e-12)
    assert (np.nextafter(found.below, found.above) == found.above).all()


def test_a_point_between_two_steps_that_cannot_be_measured_empties_the_curve():
    def curves(rows, at):
        return np.where((rows == 1) & (at % 1 != 0), np.nan, at)

    found = find_crossings(curves, 3, np.arange(11.0), CrossingTarget(threshold=4.5, tolerance=0.25))
    assert np.isnan([found.at[1], found.below[1], found.above[1], found.value_below[1]]).all()
    np.testing.assert_allclose(found.at[[0, 2]], 4.5)
