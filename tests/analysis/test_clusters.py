"""Documents in intervals: formulas against naive lines, coverage, and the old formulas as controls."""

import numpy as np
import pytest
from scipy import stats

from decision_coverage import logs
from documents_coverage import covered, decided, sample
from tiltmeter.analysis.clusters import freedom, grouped, spread
from tiltmeter.analysis.confidence_sequences import half_width, sequential_mean
from tiltmeter.analysis.estimates import ABOVE_ZERO, Estimand, estimate
from tiltmeter.analysis.intervals import mean_interval, median_interval, student_interval
from tiltmeter.analysis.t_intervals import careful_t, skewness
from tiltmeter.studies.estimands import fraction, mean, ratio

SIZES = [1, 4, 2, 7, 3, 1, 5, 2, 2, 6, 3, 4]
DOCUMENTS = np.random.default_rng(3).permutation(np.repeat(np.arange(12), SIZES))
VALUES = np.random.default_rng(0).normal(3, 1, 40) + np.random.default_rng(1).normal(0, 1, 12)[DOCUMENTS]


def bounds(found):
    return [float(one) for one in found[:3]]


def matrices(documents):
    """The CR2 estimator as Bell & McCaffrey (2002) have it, for a regression on a constant, by whole matrices."""
    n, names = len(documents), np.unique(documents)
    design = np.ones((n, 1))
    bread = np.linalg.inv(design.T @ design)
    residual_maker = np.eye(n) - design @ bread @ design.T
    columns = []
    for name in names:
        own = documents == name
        values, vectors = np.linalg.eigh(residual_maker[np.ix_(own, own)])
        adjusted = vectors @ np.diag(values**-0.5) @ vectors.T
        columns.append(residual_maker[own].T @ adjusted @ design[own] @ bread)
    return np.hstack(columns)  # [sequence, document]: the error squared is the sum of squares of values @ this


def test_the_error_is_cr2():
    expected = np.sqrt(((VALUES @ matrices(DOCUMENTS)) ** 2).sum())
    found = spread(VALUES, DOCUMENTS)
    assert found.n == 12 and found.deviation / np.sqrt(12) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sizes", [[1] * 6, [3] * 5, SIZES, [1, 1, 20], [2, 9]])
def test_the_degrees_of_freedom_are_satterthwaites(sizes):
    documents = np.repeat(np.arange(len(sizes)), sizes)
    alike = (documents[:, None] == documents).astype(float)  # covariance of equal values in each document
    weights = matrices(documents)
    moments = weights.T @ alike @ weights
    assert freedom(np.array(sizes)) == pytest.approx(np.trace(moments) ** 2 / np.trace(moments @ moments), rel=1e-9)
    assert freedom(np.array([4] * 9)) == pytest.approx(8)


def test_intervals_are_of_these():
    error = np.sqrt(((VALUES @ matrices(DOCUMENTS)) ** 2).sum())
    reach = stats.t.ppf(0.975, freedom(np.bincount(DOCUMENTS))) * error
    assert student_interval(VALUES, 0.95, DOCUMENTS) == pytest.approx((VALUES.mean() - reach, VALUES.mean() + reach))
    found = mean_interval(VALUES, documents=DOCUMENTS)
    assert found.mean == VALUES.mean() and found.n == 40
    assert found.low <= VALUES.mean() - reach + 1e-9 and found.high >= VALUES.mean() + reach - 1e-9
    sequential = sequential_mean(np.tile(VALUES, 4), documents=np.tile(DOCUMENTS, 4) + np.repeat([0, 12, 24, 36], 40))
    assert np.isfinite(sequential.high) and sequential.n == 160


def test_numbers_of_documents_do_not_matter_nor_does_the_order():
    order = np.random.default_rng(0).permutation(40)
    found = mean_interval(VALUES, documents=DOCUMENTS)
    for documents, values in ((100 - DOCUMENTS, VALUES), (DOCUMENTS[order], VALUES[order])):
        assert bounds(mean_interval(values, documents=documents)) == pytest.approx(bounds(found))


def test_one_sequence_a_document_changes_no_bit():
    values = np.random.default_rng(0).lognormal(size=(3, 150))
    values[1, 4] = np.nan
    alone, named = None, np.arange(150)[::-1] + 7
    for function in (mean_interval, sequential_mean):
        for one, other in zip(function(values, documents=alone), function(values, documents=named), strict=True):
            assert np.array_equal(one, other, equal_nan=True)
    assert student_interval(values[0], 0.9) == student_interval(values[0], 0.9, named)
    assert median_interval(values[0]) == median_interval(values[0], documents=named)
    for quantity in (
        mean("", values[0], ABOVE_ZERO),
        ratio("", values[0], values[2]),
        fraction("", 1.0 * (values[0] > 1), ABOVE_ZERO),
    ):
        assert estimate(quantity, 3) == estimate(quantity._replace(documents=named), 3)
    held = values[0]
    plain = (held.std(axis=-1, ddof=1), skewness(held - held.mean()), 150, 149)
    assert tuple(map(float, spread(held, named))) == tuple(map(float, plain)), "what intervals used before"


def test_of_one_document_nothing_is_known_of_others():
    """Its sequences then count: the interval is about this text."""
    assert grouped(np.zeros(40, int)) is None
    assert mean_interval(VALUES, documents=np.zeros(40, int)) == mean_interval(VALUES)


def test_a_nan_takes_its_sequence_out_of_its_document():
    holed = np.where(np.arange(40) % 9 == 0, np.nan, VALUES)
    kept = ~np.isnan(holed)
    found, alone = mean_interval(holed, documents=DOCUMENTS), mean_interval(VALUES[kept], documents=DOCUMENTS[kept])
    assert found == alone
    many = np.tile(holed, 4), np.tile(DOCUMENTS, 4) + np.repeat([0, 12, 24, 36], 40)
    kept = ~np.isnan(many[0])
    found, alone = sequential_mean(many[0], documents=many[1]), sequential_mean(many[0][kept], documents=many[1][kept])
    assert bounds(found) == pytest.approx(bounds(alone))


def test_documents_that_do_not_differ_have_no_interval():
    assert np.isnan(mean_interval(np.array([0.0, 1.0, 1.0, 0.0]), documents=np.array([0, 0, 1, 1])).low)


def test_a_sequence_that_is_there_twice_tells_nothing_new():
    """Every value five times, in a document each, has the interval of the values themselves."""
    values = np.random.default_rng(0).lognormal(size=200)
    five, documents = np.repeat(values, 5), np.repeat(np.arange(200), 5)
    for function in (mean_interval, sequential_mean):
        assert bounds(function(five, documents=documents)) == pytest.approx(bounds(function(values)))
    assert sequential_mean(five).high - values.mean() == pytest.approx(
        half_width(np.array(1000), np.array(five.std(ddof=1)))
    )
    low, high = median_interval(five, documents=documents)
    assert low <= median_interval(values)[0] and median_interval(values)[1] <= high
    assert median_interval(five)[0] > low, "the control: a thousand values would be known better"
    for quantity in (mean("", values, ABOVE_ZERO), fraction("", 1.0 * (values > 1), ABOVE_ZERO)):
        one = estimate(quantity, 4)
        other = estimate(quantity._replace(rows=np.repeat(quantity.rows, 5, axis=0), documents=documents), 4)
        assert (other.n, other.documents, other.value) == (1000, 200, pytest.approx(one.value))
        assert other[2:6] == pytest.approx(one[2:6], rel=0.02)


def test_fewer_than_ten_documents_decide_nothing():
    rows, documents = np.random.default_rng(0).normal(9, 1, 40), np.repeat(np.arange(8), 5)
    quantity = Estimand("", rows, lambda r: float(r.mean()), ABOVE_ZERO)
    assert estimate(quantity, 1).decision == "inside"
    assert estimate(quantity._replace(documents=documents), 1).decision is None


@pytest.mark.parametrize(("each", "rho"), [(4, 0.3), (8, 0.5)])
@pytest.mark.parametrize("name", ["normal", "lognormal"])
def test_clusters_are_covered(name, each, rho):
    assert covered(name, 192, each, rho, runs=1500) >= 0.92
    assert covered(name, 192, each, rho, runs=1500, documents=False) < 0.91


def test_medians_are_covered():
    values, documents, _ = sample("lognormal", 192, 4, 0.3, np.random.default_rng(0), 400)
    held = [low <= 1 <= high for low, high in (median_interval(one, documents=documents) for one in values)]
    control = [low <= 1 <= high for low, high in map(median_interval, values)]
    assert np.mean(held) >= 0.93 > 0.9 > np.mean(control)


def test_decisions_by_documents_are_as_seldom_wrong_as_they_say():
    """Documents of eight sequences with a correlation of 0.5; the control takes sequences as independent."""
    by_documents, by_sequences = decided(96, 8, 0.5, 20, runs=8000)
    assert by_documents <= 1.5 * 0.0025 < 0.01 < by_sequences


def test_the_deciding_interval_by_documents_is_the_one_that_is_simulated():
    values, documents, _ = sample("normal", 48, 4, 0.3, np.random.default_rng(0), 2)
    one, other = np.exp(values)
    found = estimate(ratio("", one, other)._replace(documents=documents), 20, seed=5)
    value, of_logs = logs(*(part.reshape(1, 12, 4).sum(-1) for part in (one, other)), seed=5)
    low, high = careful_t(value, of_logs, 1 - 0.05 / 20)
    assert (found.joint_low, found.joint_high) == pytest.approx((np.exp(low[0]), np.exp(high[0])))
