"""Means of steps of which some are censored: restricted to the path, with the part that is censored beside."""

import numpy as np
import pytest

from giglemiani_worlds import FLAT, NEARER, PUBLISHED, N, dataset, ramps, results
from tiltmeter.analysis.estimates import estimate
from tiltmeter.analysis.shapes import Shape
from tiltmeter.studies.claims import judge
from tiltmeter.studies.giglemiani2024 import STUDY
from tiltmeter.studies.giglemiani2024.claims import CLAIMS
from tiltmeter.studies.giglemiani2024.curve_statistics import censored_part, sample, within_path
from tiltmeter.studies.giglemiani2024.estimands import above
from tiltmeter.studies.giglemiani2024.experiments import TARGET
from tiltmeter.studies.giglemiani2024.figures.wording import mean_step
from tiltmeter.studies.results import NotMeasured, Results

NEVER = 400.0
"""A step beyond the path, of 100."""

NAMED = {claim.name: claim for claim in CLAIMS}


def world(real, random):
    """Plateaus around real and random activations that end at these steps, one a sequence."""
    found = dict(results(PUBLISHED, NEARER, FLAT).found)
    for base, ends in (("real", real), ("cov-random", random)):
        found[f"plateaus-{base}"] = dataset({TARGET: ramps(np.array(ends))}, np.ones((1, 101, N)))
    return Results(found, {})


def some_never(part, step):
    """Plateaus that end at a step, and every so many that never end within the path."""
    return np.where(np.arange(N) % 100 < 100 * part, NEVER, step)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.4])
def test_a_censored_curve_counts_as_the_last_step(part):
    found = sample(world(some_never(part, 15.0), some_never(0, 8.0)), "ap", "real")
    assert censored_part(found) == pytest.approx(part)
    naive = [100.0 if censored else value for value, censored in zip(*found, strict=True)]
    assert np.mean(within_path(found)) == pytest.approx(np.mean(naive)) == pytest.approx(15 * (1 - part) + 100 * part)


def test_curves_that_were_not_measured_stay_out():
    found = Shape(np.array([3.0, np.nan, np.nan]), np.array([False, True, False]))
    assert np.array_equal(within_path(found), [3.0, 100.0, np.nan], equal_nan=True)
    assert censored_part(found) == 0.5
    assert censored_part(Shape(np.array([np.nan]), np.array([False]))) == 0.0


def test_the_latest_curves_do_not_make_their_type_early():
    """Without its censored curves real has a mean of 8, no more than random's; 40 % of them are later than all of those."""
    run = world(some_never(0.4, 8.0), some_never(0, 8.0))
    (estimand,) = above("ap", "real", "cov-random")(run)
    one, other = np.nanmean(sample(run, "ap", "real").value), np.nanmean(sample(run, "ap", "cov-random").value)
    assert one / other == pytest.approx(1)
    assert estimate(estimand, 1).decision == "inside"
    assert estimand.label.endswith("(censored, counted as the last step: 40.0% and 0.0%)")


def test_without_censored_curves_nothing_is_said_of_them():
    (estimand,) = above("ap", "real", "cov-random")(world(some_never(0, 15.0), some_never(0, 8.0)))
    assert "censored" not in estimand.label


def test_where_most_are_censored_there_is_no_mean():
    run = world(some_never(0, 15.0), some_never(0.6, 8.0))
    with pytest.raises(NotMeasured, match="60% of the curves are censored, so the path does not show their mean step"):
        above("ap", "real", "cov-random")(run)
    verdict = judge([NAMED["plateaus-real-above-random"]], run)[0]
    assert verdict.word == "not tested" and "60% of the curves" in verdict.reason
    assert mean_step(run, sample(run, "ap", "cov-random")) == "none"


def test_findings_have_restricted_means_and_the_part_that_is_censored():
    said = STUDY.figures["3"].finding(world(some_never(0.1, 15.0), some_never(0, 8.0)))
    assert "real 23.5" in said and "real 10.0%" in said
