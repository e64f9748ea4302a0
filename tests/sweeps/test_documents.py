"""Documents in results: where they are stored, that they count, and that nothing else depends on them."""

import json

import numpy as np
import pytest

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.analysis import curves as stored_curves
from tiltmeter.analysis.intervals import mean_interval, median_interval
from tiny_models import tiny

DOCUMENTS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])
SWEEP = tm.Sweep(
    site="resid_pre:1",
    directions=("isotropic", "real-mixture"),
    path=tm.Straight(lengths=(0, 0.5, 5)),
    sequences=12,
    shard=5,
    statistics_sequences=12,
)


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="tiny")


def with_documents(documents=DOCUMENTS):
    tokens = token_set()
    return tm.TokenSet(tokens.ids, tokens.name, tokens.boundary, {}, documents)


@pytest.fixture(scope="module")
def measured(loaded, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return tm.run_sweep(SWEEP, loaded, with_documents(), out), out


def test_curves_say_which_document_a_sequence_is_from(measured, loaded):
    found, out = measured
    assert found.document.dims == ("sequence",) and found.document.values.tolist() == DOCUMENTS.tolist()
    assert tm.load_curves(out / "curves.nc").identical(found)
    assert stored_curves.to_frame(found).query("sequence == 6").document.unique().tolist() == [2]
    alone = tm.run_sweep(SWEEP, loaded, token_set())
    assert alone.document.values.tolist() == list(range(12))
    np.testing.assert_array_equal(alone.kl, found.kl)


def test_the_summary_counts_documents(measured, loaded):
    found, _ = measured
    table = tm.summary(found)
    expected = mean_interval(found.kl.transpose("direction", "step", "sequence").values, documents=DOCUMENTS)
    rows = table[table.readout == "kl"]
    np.testing.assert_array_equal(rows.high, expected.high.ravel())
    assert {*table.n} == {12} and {*table.documents} == {4}
    alone = tm.summary(found.assign_coords(document=("sequence", np.arange(12))))
    assert "documents" not in alone and alone.equals(tm.summary(found.drop_vars("document")))
    one = tm.summary(found.sel(sequence=3))
    assert {*one.n} == {1} and "documents" not in one


def test_the_hash_and_the_run_are_others(measured):
    _, out = measured
    identity = json.loads((out / "manifest.json").read_text())["identity"]["tokens"]
    assert identity["sha256"] == with_documents().sha256() != token_set().sha256()


def test_what_is_measured_does_not_depend_on_batches_nor_on_how_many_are_asked_for(measured, loaded):
    found, _ = measured
    other = tm.run_sweep(SWEEP.model_copy(update={"batch_tokens": 16, "shard": 3}), loaded, with_documents())
    assert other.document.equals(found.document)
    np.testing.assert_allclose(other.kl, found.kl, rtol=1e-4, atol=1e-9)
    few = tm.run_sweep(SWEEP.model_copy(update={"sequences": 7}), loaded, with_documents())
    assert few.document.values.tolist() == DOCUMENTS[:7].tolist()
    np.testing.assert_allclose(few.kl, found.kl.isel(sequence=slice(7)), rtol=1e-4, atol=1e-9)


def test_medians_of_crossings_count_documents(loaded):
    rng = np.random.default_rng(0)
    wanted = tm.Crossings(sweep=SWEEP, goal=tm.CrossingTarget(fraction=0.5))
    table = tm.run_crossings(wanted, loaded, with_documents())
    assert table.document.tolist() == [*DOCUMENTS, *DOCUMENTS]
    values, documents = rng.normal(size=80), np.repeat(np.arange(40), 2)
    assert median_interval(values, documents=documents)[0] <= median_interval(values)[0]


def test_sequences_of_one_document_are_warned_of(loaded, caplog):
    found = tm.run_sweep(SWEEP, loaded, with_documents(np.zeros(12, np.int64)))
    assert "All 12 sequences are from one document" in caplog.text
    assert "one document" in found.attrs["cautions"]
    caplog.clear()
    tm.run_sweep(SWEEP, loaded, with_documents())
    assert "one document" not in caplog.text
