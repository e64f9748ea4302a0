"""Samples of a statistic of means are the same at once as one after the other."""

import numpy as np
import pytest

from tiltmeter.analysis.resampling import OfMeans, bootstrap, jackknife

ROWS = np.random.default_rng(0).lognormal(size=(30, 2))
RATIO = OfMeans(lambda means: means[..., 0] / means[..., 1])


def naive(rows):
    return rows[:, 0].mean() / rows[:, 1].mean()


def test_draws_are_those_of_the_loop():
    np.testing.assert_allclose(bootstrap(RATIO, ROWS, None, 50, 3), bootstrap(naive, ROWS, None, 50, 3), rtol=1e-12)
    draws = np.random.default_rng(3).integers(0, 30, (50, 30))
    np.testing.assert_allclose(bootstrap(RATIO, ROWS, None, 50, 3), [naive(ROWS[draw]) for draw in draws], rtol=1e-12)


def test_jackknife_is_that_of_the_loop():
    np.testing.assert_allclose(
        jackknife(RATIO, ROWS, None), [naive(np.delete(ROWS, at, 0)) for at in range(30)], rtol=1e-12
    )


def test_a_missing_number_is_left_out_of_its_column():
    rows = ROWS.copy()
    rows[4, 0] = np.nan
    assert RATIO(rows) == pytest.approx(np.delete(rows[:, 0], 4).mean() / rows[:, 1].mean())
    assert np.isfinite(bootstrap(RATIO, rows, None, 50, 3)).all()
    assert np.isfinite(jackknife(RATIO, rows, None)).all()


def test_what_is_undefined_is_nan():
    with np.errstate(all="ignore"):
        assert np.isnan(bootstrap(RATIO, np.zeros((10, 2)), None, 5, 0)).all()


def test_documents_are_drawn_and_left_out_whole():
    members = [np.arange(5), np.arange(5, 8), np.arange(8, 30)]
    np.testing.assert_allclose(
        bootstrap(RATIO, ROWS, members, 50, 3), bootstrap(naive, ROWS, members, 50, 3), rtol=1e-12
    )
    without = [naive(np.delete(ROWS, one, 0)) for one in members]
    np.testing.assert_allclose(jackknife(RATIO, ROWS, members), without, rtol=1e-12)
