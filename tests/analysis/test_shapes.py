"""Shapes of curves: against loops written from the definitions, closed forms, and what must not change them."""

import math

import numpy as np
import pytest

from tiltmeter.analysis.shapes import (
    Shape,
    auc_step,
    crossing,
    ks_distance,
    max_slope_step,
    nonlinearity_step,
    plateau_step,
    relative,
    separation_auc,
)
from tiltmeter.errors import TiltmeterError

nan, inf = math.nan, math.inf
CENSORED, MISSING = "censored", "missing"


def naive_max_slope(v):
    if len(v) < 2:
        return MISSING
    rises = [v[n] - v[n - 1] for n in range(1, len(v))]
    padded = [rises[0], *rises]
    if not any(rise > 0.02 for rise in padded):
        return CENSORED
    return max(n for n in range(len(v)) if padded[n] == max(padded))


def naive_plateau(v):
    return next((n for n in range(len(v)) if v[n] >= 1.5), CENSORED) if v else MISSING


def naive_auc(v):
    ratios = []
    for i in range(1, len(v)):
        area = sum((v[n] + v[n + 1]) / 2 for n in range(i - 1))
        ratios.append(v[i - 1] * i / 2 / area if area else 0)
    if len(ratios) < 6:
        return MISSING
    best = max(ratios[5:])
    return ratios[5:].index(best) + 5 if best > 0 else CENSORED


def naive_nonlinearity(v):
    if len(v) < 11:
        return MISSING
    for n in range(10, len(v)):
        line = v[0] + (v[9] - v[0]) / 9 * n
        if abs(v[n] - line) > 0.2 * abs(line):
            return n - 1
    return CENSORED


STEPS = np.linspace(0.0, 20.0, 41)


def naive_crossing(v):
    if not v:
        return MISSING
    if v[0] > 1.5:
        return STEPS[0]
    for n in range(1, len(v)):
        if v[n] > 1.5:
            return STEPS[n - 1] + 0.5 * (1.5 - v[n - 1]) / (v[n] - v[n - 1])
    return CENSORED


PAIRS = {
    "max_slope": (max_slope_step, naive_max_slope),
    "plateau": (lambda v, stop=None: plateau_step(v, 1.5, stop), naive_plateau),
    "auc": (auc_step, naive_auc),
    "nonlinearity": (lambda v, stop=None: nonlinearity_step(v, stop=stop), naive_nonlinearity),
    "crossing": (lambda v, stop=None: crossing(v, STEPS[: v.shape[-1]], 1.5, stop), naive_crossing),
}
EACH = pytest.mark.parametrize(("ours", "naive"), PAIRS.values(), ids=PAIRS)


def some_curves(count=300, steps=41, seed=0):
    """Ramps, plateaus, saturating and noisy curves, flat and zero ones."""
    rng = np.random.default_rng(seed)
    n = np.arange(steps)
    scale, middle, width = (
        rng.lognormal(0, 1, (count, 1)),
        rng.uniform(0, 50, (count, 1)),
        rng.uniform(1, 9, (count, 1)),
    )
    values = scale / (1 + np.exp((middle - n) / width)) + rng.uniform(0, 0.1, (count, 1)) * n
    values[::3] += rng.normal(0, 0.05, values[::3].shape)
    values[1::10] = 0.0
    values[2::10] = np.round(values[2::10], 1)  # ties
    values[3::10] = 0.01 * np.round(values[3::10])
    return values


def expected(naive, values, stops):
    found = [naive([float(x) for x in row[:stop]]) for row, stop in zip(values, stops, strict=True)]
    return [nan if isinstance(x, str) else x for x in found], [x == CENSORED for x in found]


def assert_shape(shape, value, censored):
    np.testing.assert_allclose(shape.value, value, rtol=1e-12)
    np.testing.assert_array_equal(shape.censored, censored)
    assert shape.value.dtype == np.float64 and shape.censored.dtype == bool


@EACH
def test_as_the_definition_says(ours, naive):
    values = some_curves()
    value, censored = expected(naive, values, [41] * len(values))
    assert_shape(ours(values), value, censored)
    assert 0 < sum(censored) < len(values)
    assert len(set(np.array(value)[~np.isnan(value)])) > 10


@EACH
def test_stop_cuts_curves_and_never_goes_beyond_the_path(ours, naive):
    values = some_curves(seed=1)
    stops = np.random.default_rng(2).integers(0, 60, len(values))
    value, censored = expected(naive, values, stops)
    assert_shape(ours(values, stop=stops), value, censored)
    assert_shape(ours(values, stop=np.full(len(values), 41)), *ours(values))


@EACH
def test_what_lies_behind_stop_is_not_looked_at(ours, naive):
    values = some_curves(20)
    stop = np.full(20, 30)
    holed = values.copy()
    holed[:, 30:] = [nan, inf, 1e9, -1e9, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert_shape(ours(holed, stop=stop), *ours(values[:, :30]))


@EACH
def test_leading_axes_and_none(ours, naive):
    values = some_curves(24)
    stops = np.arange(24) + 15
    flat = ours(values, stop=stops)
    cube = ours(values.reshape(2, 3, 4, 41), stop=stops.reshape(2, 3, 4))
    assert cube.value.shape == (2, 3, 4)
    assert_shape(Shape(cube.value.ravel(), cube.censored.ravel()), *flat)
    alone = ours(values[5], stop=stops[5:6].reshape(()))
    assert alone.value.shape == alone.censored.shape == ()
    assert_shape(alone, flat.value[5], flat.censored[5])
    assert ours(values[:0]).value.shape == (0,)


@EACH
@pytest.mark.parametrize("hole", [nan, inf, -inf])
def test_a_curve_with_a_hole_is_not_measured_and_not_censored(ours, naive, hole):
    values = some_curves(30)
    values[4, 7], values[11] = hole, hole
    shape, rest = ours(values), ours(np.delete(values, [4, 11], axis=0))
    assert np.isnan(shape.value[[4, 11]]).all() and not shape.censored[[4, 11]].any()
    assert_shape(Shape(*(np.delete(field, [4, 11]) for field in shape)), *rest)


@pytest.mark.parametrize(("name", "needed"), [("max_slope", 2), ("plateau", 1), ("auc", 7), ("nonlinearity", 11)])
def test_curves_of_too_few_steps_are_not_measured(name, needed):
    ours = PAIRS[name][0]
    zeros = np.zeros((1, 41))
    for short in (ours(zeros[:, : needed - 1]), ours(zeros, stop=np.array([needed - 1]))):
        assert_shape(short, [nan], [False])
    for enough in (ours(zeros[:, :needed]), ours(zeros, stop=np.array([needed]))):
        assert_shape(enough, [nan], [True])


@EACH
def test_the_input_is_left_alone(ours, naive):
    values = some_curves(10)
    values.flags.writeable = False
    ours(values)


def test_the_units_of_a_readout_do_not_matter_where_no_threshold_is():
    values = some_curves()
    for scale in (2.0**-20, 4.0, 2.0**20):  # exact, so that ties stay ties
        assert_shape(auc_step(scale * values), *auc_step(values))
        assert_shape(nonlinearity_step(scale * values), *nonlinearity_step(values))
        assert_shape(max_slope_step(scale * values, 0.02 * scale), *max_slope_step(values))
        assert_shape(plateau_step(relative(scale * values), 0.5), *plateau_step(relative(values), 0.5))


def test_stretched_steps_stretch_crossings():
    values = some_curves()
    plain, stretched = (crossing(values, scale * STEPS, 1.5) for scale in (1.0, 7.0))
    assert_shape(stretched, 7 * plain.value, plain.censored)


@pytest.mark.parametrize("middle", [8.0, 30.3, 77.7])
def test_the_steepest_step_of_a_logistic_curve_is_its_inflection(middle):
    curve = 40 / (1 + np.exp((middle - np.arange(100)) / 6))
    # Symmetric about its middle: the steepest rise is the one across it, and n is where that rise ends.
    assert max_slope_step(curve).value == math.floor(middle + 0.5) + (middle % 1 < 0.5)
    assert abs(max_slope_step(curve).value - middle) <= 1


def test_the_steepest_rise_ends_at_the_step_it_is_named_by():
    jump = np.r_[np.zeros(6), np.ones(4)]
    assert max_slope_step(jump).value == 6
    assert max_slope_step(np.array([0.0, 1.0, 1.1])).value == 1
    assert max_slope_step(np.array([0.0, 1.0, 1.5, 2.5, 2.6])).value == 3  # the last of two equal ones
    assert max_slope_step(3.0 * np.arange(100)).value == 99
    # With many ties an unstable sort may give any of them.
    assert max_slope_step(np.tile([0.0, 1.0], 40)).value == 79


@pytest.mark.parametrize("slope", [0.3, 3.0, 5.0, 20.0, 40.0])
def test_a_ramp_leaves_its_plateau_where_arithmetic_says(slope):
    ramp = slope * np.arange(101.0)
    assert plateau_step(ramp, 20.0).value == math.ceil(round(20 / slope, 9))
    assert crossing(ramp, 0.5 * np.arange(101), 20.0).value == pytest.approx(0.5 * 20 / slope)


def test_a_plateau_ends_at_a_value_equal_to_its_threshold_and_a_crossing_there_too():
    curve = np.array([0.0, 1.0, 2.0, 3.0])
    assert plateau_step(curve, 2.0).value == 2
    assert crossing(curve, np.array([0.0, 10.0, 20.0, 30.0]), 2.0).value == 20
    assert plateau_step(curve, 3.0).value == 3
    assert crossing(curve, np.array([0.0, 10.0, 20.0, 30.0]), 3.0).censored


def test_a_straight_line():
    line = 0.7 * np.arange(60.0)
    assert_shape(nonlinearity_step(line + 3), nan, True)
    # Its ratios are (n + 1) / n, greatest at the first candidate.
    assert_shape(auc_step(line), 5.0, False)


def test_the_auc_step_of_a_hockey_stick():
    """0 up to k, then a ramp: the ratio (k + m)(m) / m² falls in m, so the best is the first step of the ramp."""
    curve = np.maximum(np.arange(60.0) - 20, 0)
    assert auc_step(curve).value == 21


def test_the_last_step_is_no_candidate_of_the_auc():
    jump = np.r_[np.ones(30), 1000.0]
    assert auc_step(jump).value == 5
    assert auc_step(np.r_[jump, 1000.0]).value == 30


def test_nonlinearity_of_a_kink_is_where_it_is_a_fifth_off():
    """Slope 1 up to n = 20, then 3: off by 2 (n − 20) > n / 5 from n > 22.2 on."""
    n = np.arange(50.0)
    curve = n + 2 * np.maximum(n - 20, 0)
    assert nonlinearity_step(curve).value == 22
    assert nonlinearity_step(curve, tolerance=0.1).value == 21
    assert nonlinearity_step(n - 0.5 * np.maximum(n - 20, 0)).value == 33
    assert nonlinearity_step(n[:12] ** 2, fit=3).value == 2


def test_nonlinearity_of_a_line_at_or_below_zero():
    falling = np.r_[10.0 - np.arange(15.0), -3.0, -3.0, -9.0]
    assert nonlinearity_step(falling).value == 14
    assert nonlinearity_step(np.r_[np.zeros(12), 1e-9]).value == 11


def test_fit_must_give_a_line():
    with pytest.raises(TiltmeterError, match="fit is 1"):
        nonlinearity_step(np.zeros(20), fit=1)


def test_crossing_begins_where_the_path_does():
    high = np.array([5.0, 6.0])
    assert crossing(high, np.array([0.0, 1.0]), 0.5).value == 0
    assert crossing(high, np.array([1.0, 2.0]), 0.5).value == 1


def test_crossing_is_before_the_smallest_scanned_value_by_up_to_a_step():
    values = some_curves()
    interpolated = crossing(values, STEPS, 0.5)
    above = values > 0.5
    scanned = np.where(above.any(axis=1), STEPS[above.argmax(axis=1)], nan)
    late = (scanned - interpolated.value)[~interpolated.censored & (scanned > 0)]
    assert late.size > 100 and late.min() >= 0 and late.max() <= 0.5
    assert late.mean() == pytest.approx(0.25, abs=0.05)


def test_crossing_of_uneven_steps_and_the_first_of_several():
    curve = np.array([0.0, 1.0, 0.0, 3.0])
    assert crossing(curve, np.array([0.0, 1.0, 11.0, 101.0]), 0.5).value == 0.5
    assert crossing(curve, np.array([0.0, 1.0, 11.0, 101.0]), 2.0).value == 71.0
    with pytest.raises(TiltmeterError, match="do not grow"):
        crossing(curve, np.array([0.0, 2.0, 1.0, 3.0]), 0.5)


def test_relative_curves_end_at_one():
    values = np.array([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 0.0, 0.0], [nan, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, -1.0]])
    np.testing.assert_array_equal(relative(values), [[0.125, 0.25, 0.5, 1.0], *[[nan] * 4] * 3])
    cut = relative(values, np.array([3, 3, 0, 9]))
    np.testing.assert_array_equal(cut, [[0.25, 0.5, 1.0, 2.0], *[[nan] * 4] * 3])
    np.testing.assert_array_equal(relative(values[0]), relative(values)[0])


def test_ks_of_identical_and_of_separate_samples():
    sample = np.random.default_rng(0).integers(0, 30, 200).astype(float)
    assert ks_distance(sample, sample) == 0
    assert separation_auc(sample, sample) == 0.5
    assert ks_distance(sample, sample + 100) == separation_auc(sample, sample + 100) == 1
    assert separation_auc(sample + 100, sample) == 0


def naive_ks(a, b):
    return max(abs(np.mean([x <= at for x in a]) - np.mean([x <= at for x in b])) for at in [*a, *b])


def naive_separation(a, b):
    return np.mean([(x < y) + 0.5 * (x == y) for x in a for y in b])


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_the_naive_ones_with_censored_curves_last(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 12, 40).astype(float), rng.integers(3, 14, 25).astype(float)
    hidden = [Shape(np.where(x >= 10, nan, x), x >= 10) for x in (a, b)]
    last = [np.where(x >= 10, 1000.0, x) for x in (a, b)]
    assert ks_distance(*hidden) == pytest.approx(naive_ks(*last))
    assert separation_auc(*hidden) == pytest.approx(naive_separation(*last))
    assert separation_auc(*hidden[::-1]) == pytest.approx(1 - naive_separation(*last))
    plain = [np.where(x >= 10, inf, x) for x in (a, b)]
    assert ks_distance(*plain) == ks_distance(*hidden)
    gaps = [Shape(np.r_[nan, shape.value], np.r_[False, shape.censored]) for shape in hidden]
    assert ks_distance(*gaps) == ks_distance(*hidden) and separation_auc(*gaps) == separation_auc(*hidden)


def test_distances_of_nothing_are_nothing():
    some, none = np.ones(3), np.array([nan])
    for distance in (ks_distance, separation_auc):
        assert math.isnan(distance(some, none)) and math.isnan(distance(none, some))
    all_censored = Shape(np.full(3, nan), np.full(3, True))
    assert ks_distance(all_censored, all_censored) == 0
    assert separation_auc(some, all_censored) == ks_distance(some, all_censored) == 1
