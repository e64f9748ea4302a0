"""Studies and reports from Python."""

from dataclasses import replace

import numpy as np
import pytest

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.studies.report import claims_rows
from tiny_models import tiny


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A part of a study on objects."""
    out = tmp_path_factory.mktemp("study") / "run"
    tokens = replace(token_set(sequences=40, length=12), documents=np.arange(40) % 20)
    model = tm.load_model(tiny("gpt2"), name="small")
    found = tm.reproduce(
        "lee2024", out=out, model=model, tokens=tokens, size="quick", figures=["1"], layer=1, control="none", length=10
    )
    return found, out


def test_a_study_of_objects_gives_a_report_and_its_claims(small):
    found, out = small
    assert found.page == out / "report.html" and found.page.is_file()
    assert found.claims.name.tolist() == [row.name for row in claims_rows(out)]
    assert set(found.claims.verdict) <= {"supported", "contradicted", "inconclusive", "not tested"}
    assert str(found) and tm.claims(out).equals(found.claims)


def test_a_study_counts_the_documents_of_the_tokens_that_it_was_given(small):
    _, out = small
    files = list((out / "model").rglob("curves.nc"))
    assert files
    for file in files:
        found = tm.load_curves(file).document.values
        assert len(found) > 20 and found.tolist() == (np.arange(len(found)) % 20).tolist()


def test_a_report_is_written_again(small):
    _, out = small
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert tm.report(str(out)).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"figure": "2"}, "reproduce has no option 'figure'; choose from figures, size"),
        ({"figures": "2"}, r"figures was '2'; give a tuple: \('2',\)"),
        ({"size": "huge"}, "'huge' is not a size"),
        ({"model": tiny("gpt2")}, "No tokens were named for the model"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        tm.reproduce("lee2024", **options)
