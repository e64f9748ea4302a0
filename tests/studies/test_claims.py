"""Verdicts: what is supported, contradicted, open or not tested, and what random weights mean for it."""

import numpy as np
import pytest
import xarray as xr

from tiltmeter.analysis.estimates import ABOVE_ZERO, Region
from tiltmeter.studies.claim_rows import claim_rows, remark_on_control
from tiltmeter.studies.claims import Claim, Published, Verdict, judge
from tiltmeter.studies.estimands import mean
from tiltmeter.studies.results import NotMeasured, Results

NOTHING = Results({}, {})
NOISE = np.random.default_rng(0).normal(0.0, 1.0, 40)
NOISE = (NOISE - NOISE.mean()) / NOISE.std()


def claim(name, *centres, region=ABOVE_ZERO, **more):
    def estimands(_):
        return [mean(f"{name} {centre}", NOISE + centre, region) for centre in centres]

    return Claim(name, f"{name} is above zero.", "here", estimands, **more)


def words(*claims):
    return [verdict.word for verdict in judge(claims, NOTHING)]


def test_verdicts():
    assert words(claim("a", 3.0), claim("b", -3.0), claim("c", 0.0)) == ["supported", "contradicted", "inconclusive"]


def test_all_parts_must_hold_and_one_contradicts():
    assert words(claim("a", 3.0, 4.0)) == ["supported"]
    assert words(claim("a", 3.0, 0.0)) == ["inconclusive"]
    assert words(claim("a", 3.0, 0.0, -3.0)) == ["contradicted"]


def test_the_deciding_number_is_the_one_that_holds_least():
    (verdict,) = judge([claim("a", 3.0, -1.0, 5.0)], NOTHING)
    assert verdict.deciding is not None
    assert verdict.deciding.label == "a -1.0"


def test_no_difference_is_an_equivalence():
    margin = Region(-1.0, 1.0)
    assert words(claim("a", 0.0, region=margin)) == ["supported"]
    assert words(claim("a", 0.9, region=margin)) == ["inconclusive"]
    assert words(claim("a", 3.0, region=margin)) == ["contradicted"]


def test_more_claims_ask_more_of_each():
    near = claim("near", 0.45)  # 2.8 standard errors
    assert words(near) == ["supported"]
    assert words(near, *(claim(f"other {n}", 3.0) for n in range(60)))[0] == "inconclusive"


def of_documents(count):
    """Results of 60 sequences, of so many documents."""
    documents = np.arange(60) % count
    return Results({"some": xr.Dataset(coords={"document": ("sequence", documents)})}, {})


def test_verdicts_count_documents():
    near = claim("near", 0.4)  # 2.5 standard errors of 40 independent values, 1.8 of 20
    values = NOISE[np.argsort(NOISE)].reshape(20, 2).T.ravel()  # sequence n and n + 20 are nearly equal

    def estimands(_):
        return [mean("", values + 0.4, ABOVE_ZERO)]

    alike = near._replace(estimands=estimands)
    assert [one.word for one in judge([alike], NOTHING)] == ["supported"]
    assert [one.word for one in judge([alike], of_documents(20))] == ["inconclusive"]
    (few,) = judge([claim("a", 3.0)], of_documents(8))
    assert few.word == "not tested" and few.reason == "8 documents are too few; take tokens of at least 10."
    (clear,) = judge([claim("a", 3.0)], of_documents(20))
    assert clear.word == "supported" and "40 sequences of 20 documents" in str(
        claim_rows("lee2024", [clear], None, published=False)
    )


def test_what_was_not_measured_is_not_tested():
    def estimands(results):
        return [mean("x", results["errors"].to_numpy(), ABOVE_ZERO)]

    results = Results({}, {"errors": "errors: No SAE was given."})
    (verdict,) = judge([Claim("a", "A.", "here", estimands)], results)
    assert (verdict.word, verdict.reason) == ("not tested", "errors: No SAE was given.")


def test_an_undefined_part_leaves_a_claim_untested():
    empty = Claim("a", "A.", "here", lambda _: [mean("nothing", np.full(20, np.nan), ABOVE_ZERO)])
    (verdict,) = judge([empty], NOTHING)
    assert verdict.word == "not tested"
    assert "0 sequences are too few" in verdict.reason


def verdict(word):
    return Verdict(claim("a", 1.0), word, reason="There is no SAE.")


@pytest.mark.parametrize(
    ("own", "control", "said"),
    [
        ("supported", "supported", "says nothing about what the model has learned"),
        ("supported", "contradicted", "it comes with training"),
        ("supported", "inconclusive", "Inconclusive on random weights"),
        ("supported in part", "supported", "Also holds in part on random weights"),
        ("supported", "supported in part", "Also holds in part on random weights"),
        ("supported in part", "contradicted", "it comes with training"),
        ("contradicted", "supported in part", "Holds on random weights, not here"),
        ("contradicted", "supported", "Holds on random weights, not here"),
        ("inconclusive", "supported", "Holds on random weights."),
        ("supported", "not tested", "There is no SAE."),
        ("contradicted", "contradicted", ""),
        ("not tested", "supported", ""),
    ],
)
def test_what_random_weights_mean(own, control, said):
    remark = remark_on_control(verdict(own), verdict(control))
    assert said in remark
    assert bool(remark) == bool(said)
    assert remark_on_control(verdict(own), None) == ""


def test_rows_say_it_in_words():
    claims = [claim("a", 3.0, published=Published("2.5", "Table 1"), remark="Chosen."), claim("b", -3.0)]
    own, control = judge(claims, NOTHING), judge(claims[:1], NOTHING)
    first, second = claim_rows("paper", own, control, published=True)
    assert (first.verdict, first.effect, first.published, first.control) == (
        "supported",
        "3",
        "2.5 (Table 1)",
        "supported",
    )
    assert "says nothing about what the model has learned" in first.note
    assert len(first.parts) == 3 and first.parts[0] == "Chosen." and first.parts[2].startswith("random weights: ")
    assert (second.verdict, second.control) == ("contradicted", "")
    assert claim_rows("paper", own, None, published=False)[0].published == ""


def test_results_say_why_something_is_missing():
    results = Results({}, {"layers-0": "layers-0: No SAE.", "errors": "errors: Not run."})
    with pytest.raises(NotMeasured, match="errors: Not run"):
        results["errors"]
    with pytest.raises(NotMeasured, match="layers-0: No SAE"):
        results.by_layer("layers")
    with pytest.raises(NotMeasured, match="shapes was not run"):
        results["shapes"]
