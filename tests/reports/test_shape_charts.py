"""Charts of shapes: cumulative fractions are those counted one by one, over the whole path."""

import numpy as np
import pytest

from tiltmeter.analysis import curves
from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.charts.chart import Histogram, Line, Rule
from tiltmeter.reports.charts.layout import fill_opacity
from tiltmeter.reports.charts.shapes import cumulative, distributions, panels

STEPS = 1.61 * np.arange(9.0)


def measured():
    """Curves that are steepest at known steps, some at the last, and one that never rises."""
    rng = np.random.default_rng(0)
    rises = rng.uniform(0.1, 0.2, (2, 8, 30))
    at = rng.integers(0, 8, 30)
    at[:6] = 7
    rises[:, at, np.arange(30)] = 1.0
    kl = np.concatenate([np.zeros((2, 1, 30)), rises.cumsum(1)], axis=1)
    kl[1, :, -1] = 0.0
    axes = curves.Axes(["isotropic", "real-mixture"], STEPS, "L2", range(30))
    return curves.build({"kl": kl}, np.ones((2, 30), int), axes, {}), at


def test_fractions_are_counted_up_to_each_step_and_the_end_is_marked():
    data, at = measured()
    halfway, steepest = distributions(data, "kl").rows[0]
    first, second = (mark for mark in steepest.marks if isinstance(mark, Line))
    for line, known in ((first, at), (second, at[:-1])):
        for step in range(9):
            below = np.sum(STEPS[known + 1] <= STEPS[step]) / 30
            assert line.y[line.x == STEPS[step]].max(initial=0.0) == pytest.approx(below) or not np.any(
                known + 1 == step
            )
        assert (line.x[0], line.x[-1]) == (STEPS[0], STEPS[-1])
        assert np.all(np.diff(line.x) >= 0) and np.all(np.diff(line.y) >= 0)
    assert (first.y[-1], second.y[-1]) == (1.0, pytest.approx(29 / 30))
    assert (halfway.title, steepest.title) == ("", "censored: 0, 1")
    for panel in (halfway, steepest):
        (rule,) = (mark for mark in panel.marks if isinstance(mark, Rule))
        assert (rule.at, rule.across) == (STEPS[-1], "x") and rule.text


def test_nothing_reached_is_a_line_at_zero():
    nothing = Shape(np.full(4, np.nan), np.ones(4, bool))
    (line,) = cumulative({"isotropic": nothing}, (0.0, 5.0))
    assert (line.x.tolist(), line.y.tolist()) == ([0.0, 5.0], [0.0, 0.0])


def test_many_histograms_are_outlines():
    sample = Shape(np.arange(20.0), np.zeros(20, bool))
    names = ["isotropic", "real", "clean", "zero"]
    for number, opacity in ((2, 0.2), (3, 0.0)):
        left, _ = panels(dict.fromkeys(names[:number], sample), "step")
        assert all(isinstance(mark, Histogram) for mark in left.marks)
        assert fill_opacity(left) == opacity
