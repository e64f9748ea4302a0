"""Verdicts: what is supported, contradicted, open or not tested, and what controls say beside it."""

import numpy as np
import pytest
import xarray as xr

from tiltmeter.analysis.estimates import ABOVE_ZERO, Region
from tiltmeter.studies.claim_rows import claim_rows
from tiltmeter.studies.claims import Claim, Published, Verdict, judge
from tiltmeter.studies.control_words import control_words, remark_on_controls
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
        claim_rows("lee2024", [clear], {}, published=False)
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
    ("own", "initialised", "shuffled", "said"),
    [
        ("supported", "supported", "supported", "Also holds on: initialised, shuffled."),
        ("supported", "supported", "contradicted", "Also holds on: initialised. Does not hold on: shuffled."),
        (
            "supported",
            "contradicted",
            "supported in part",
            "Also holds on: shuffled (in part). Does not hold on: initial",
        ),
        (
            "supported in part",
            "inconclusive",
            "contradicted",
            "Does not hold on: shuffled. Inconclusive on: initialised.",
        ),
        (
            "supported",
            "not tested",
            "supported",
            "Also holds on: shuffled. Not tested on initialised: There is no SAE.",
        ),
        ("contradicted", "supported in part", "contradicted", "Holds on: initialised (in part), not here."),
        ("inconclusive", "contradicted", "supported", "Holds on: shuffled."),
        ("contradicted", "contradicted", "inconclusive", ""),
        ("not tested", "supported", "supported", ""),
    ],
)
def test_on_which_controls_a_claim_holds(own, initialised, shuffled, said):
    controls = {"initialised": {0: verdict(initialised)}, "shuffled": {0: verdict(shuffled)}}
    remark = remark_on_controls(verdict(own), controls)
    assert remark.startswith(said) and bool(remark) == bool(said)
    assert remark_on_controls(verdict(own), {}) == ""


@pytest.mark.parametrize(
    ("seeds", "word", "said"),
    [
        (["supported"] * 3, "supported", "Also holds on: shuffled (3 of 3 seeds)."),
        (["contradicted"] * 3, "contradicted", "Does not hold on: shuffled."),
        (
            ["supported", "contradicted", "inconclusive"],
            "holds in 1 of 3 seeds",
            "Also holds on: shuffled (1 of 3 seeds).",
        ),
        (["contradicted", "inconclusive"], "holds in 0 of 2 seeds", "Inconclusive on: shuffled."),
    ],
)
def test_several_seeds_of_a_control_are_counted(seeds, word, said):
    verdicts = {seed: verdict(one) for seed, one in enumerate(seeds)}
    assert control_words("shuffled", verdicts)["shuffled"] == word
    assert remark_on_controls(verdict("supported"), {"shuffled": verdicts}) == said


def test_the_number_of_a_control_is_given_with_its_range_over_seeds():
    def of_seed(value):
        return judge([Claim("a", "A.", "here", lambda _: [mean("a", NOISE + value, ABOVE_ZERO)])], NOTHING)[0]

    seeds = {4: of_seed(3.0), 5: of_seed(-1.0), 6: of_seed(2.0)}
    assert control_words("shuffled", seeds)["shuffled_effect"] == "-1 to 3 (3 seeds)"
    one = control_words("shuffled", {4: seeds[4]})["shuffled_effect"]
    assert one.startswith("3 [") and one.endswith("]")


def test_rows_say_it_in_words():
    claims = [claim("a", 3.0, published=Published("2.5", "Table 1"), remark="Chosen."), claim("b", -3.0)]
    own, control = judge(claims, NOTHING), judge(claims[:1], NOTHING)
    first, second = claim_rows("paper", own, {"shuffled": {7: control}}, published=True)
    assert (first.verdict, first.effect, first.published, first.shuffled, first.initialised) == (
        "supported",
        "3",
        "2.5 (Table 1)",
        "supported",
        "",
    )
    assert first.note == "Also holds on: shuffled."
    assert first.remark == "Chosen." and [part.on for part in first.parts] == ["", "shuffled, seed 7"]
    assert first.measured == first.parts[0].measured and first.deciding == first.parts[0].deciding
    assert (second.verdict, second.shuffled) == ("contradicted", "")
    assert claim_rows("paper", own, {}, published=False)[0].published == ""


def test_results_say_why_something_is_missing():
    results = Results({}, {"layers-0": "layers-0: No SAE.", "errors": "errors: Not run."})
    with pytest.raises(NotMeasured, match="errors: Not run"):
        results["errors"]
    with pytest.raises(NotMeasured, match="layers-0: No SAE"):
        results.by_layer("layers")
    with pytest.raises(NotMeasured, match="shapes was not run"):
        results["shapes"]
