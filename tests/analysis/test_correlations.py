"""Correlations from sums per sequence, against numpy over all tokens at once."""

import numpy as np
import pytest

from tiltmeter.analysis.correlations import matrix, sums_of
from tiltmeter.analysis.estimates import ABOVE_ZERO, estimate
from tiltmeter.studies.estimands import correlation

RNG = np.random.default_rng(0)
COLUMNS = [RNG.normal(size=(30, 12)) for _ in range(3)]
COLUMNS[1] = 1e6 + COLUMNS[0] + COLUMNS[1]
COLUMNS[2][3, 4] = np.nan
COLUMNS[0][7] = np.nan


def naive(columns, sequences):
    flat = np.stack([column[sequences].ravel() for column in columns])
    return np.corrcoef(flat[:, ~np.isnan(flat).any(0)])


def test_like_numpy_over_all_tokens():
    sums = sums_of(COLUMNS)
    assert np.isnan(sums[7]).all()
    drawn = RNG.integers(0, 30, 30)
    drawn = drawn[drawn != 7]
    np.testing.assert_allclose(matrix(sums[drawn]), naive(COLUMNS, drawn), atol=1e-12)


def test_a_column_that_does_not_vary_has_no_correlation():
    found = matrix(sums_of([COLUMNS[1], np.ones((30, 12))]))
    assert np.isnan(found[0, 1])
    assert found[0, 0] == pytest.approx(1)


def test_a_claim_about_a_correlation():
    found = estimate(correlation("r", COLUMNS[0], COLUMNS[1], ABOVE_ZERO), 1)
    every = np.arange(30)
    assert found.value == pytest.approx(naive(COLUMNS[:2], every)[0, 1])
    assert found.n == 29
    assert found.decision == "inside"
    away = estimate(correlation("r", COLUMNS[0], -COLUMNS[1], ABOVE_ZERO), 1)
    assert away.decision == "outside"
