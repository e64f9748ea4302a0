"""Claims over a whole grid of lengths: curves that cross are found, at the lengths where they cross."""

import json

import numpy as np
import pytest

from tiltmeter.analysis import curves
from tiltmeter.analysis.estimates import ABOVE_ONE, Region, estimate
from tiltmeter.reports.stored_claims import table_of_claims
from tiltmeter.reports.tables.claims import to_csv, to_latex
from tiltmeter.runs.run_directory import MANIFEST
from tiltmeter.studies.claim_rows import claim_rows
from tiltmeter.studies.claims import Claim, judge
from tiltmeter.studies.estimands import ratio
from tiltmeter.studies.lee2024.claims import CLAIMS
from tiltmeter.studies.lee2024.experiments import LENGTHS, PAIR_DISTANCE
from tiltmeter.studies.results import Results
from tiltmeter.studies.scans import qualification, scan

PAIR, SEQUENCES = 33.0, 24
STEPS = tuple(length / PAIR_DISTANCE * PAIR for length in LENGTHS)
ABOVE = "real-difference-above-mixture"


def ratio_at(length):
    """Below one up to length 11, then above: as differences ÷ mixtures on nano."""
    return {1.0: 0.67, 11.0: 0.88}.get(length, 1.5 + length / 100)


def world(of_length):
    """KL along mixtures grows with the square of the length; along differences it is `of_length` times as large."""
    rng = np.random.default_rng(0)
    mixture = np.array(LENGTHS) ** 2 / 100
    difference = mixture * [of_length(length) for length in LENGTHS]
    kl = np.stack([difference, mixture])[..., None] * np.exp(rng.normal(0, 0.03, (2, 1, SEQUENCES)))
    axes = curves.Axes(["real-difference", "real-mixture"], STEPS, "L2", range(SEQUENCES))
    attrs = {"path_unit": "pair-distance", "pair_distance": PAIR, "saes": "{}", "site": "blocks.3.hook_resid_pre"}
    readouts = {"kl": kl, "l2@blocks.5.hook_resid_post": np.sqrt(kl)}
    return Results({"directions": curves.build(readouts, np.full((2, SEQUENCES), 128), axes, attrs)}, {})


def verdict(of_length, name=ABOVE):
    return next(one for one in judge(CLAIMS, world(of_length)) if one.claim.name == name)


def at_the_papers_lengths(of_length):
    """The judgement that looks at the paper's lengths alone."""
    alone = [one for one in verdict(of_length).estimates if one.decides]
    return {one.decision for one in alone}


def test_a_reversal_between_the_papers_lengths_is_told():
    assert at_the_papers_lengths(ratio_at) == {"inside"}
    found = verdict(ratio_at)
    assert found.word == "supported in part"
    assert found.qualification.startswith("As claimed at lengths 21 to 101, ")
    assert "reversed at lengths 1 to 11 (0.6" in found.qualification
    measured = {one.place.at: one.value for one in found.estimates}
    assert measured[1.0] == pytest.approx(0.67, rel=0.05)
    assert sorted(measured) == [length for length in LENGTHS if length]


def test_what_holds_everywhere_is_not_qualified():
    found = verdict(lambda length: 1.8)
    assert (found.word, found.qualification) == ("supported", "")


def test_a_claim_that_holds_only_elsewhere_stays_contradicted():
    found = verdict(lambda length: 0.5 if length in (21.0, 51.0, 81.0) else 2.0)
    assert found.word == "contradicted"
    assert "As claimed at lengths 1 to 11, 31 to 41, 61 to 71, 91 to 101, reversed at lengths 21, 51, 81" in (
        found.qualification
    )


def noisy(of_step, claimed=ABOVE_ONE, deciding=(3.0,)):
    """A claim about ratios at steps 1 to 5, with luck of three per cent."""
    rng = np.random.default_rng(1)
    luck = np.exp(rng.normal(0, 0.1, (2, 40)))

    def at(label, step):
        return ratio(label, of_step(step) * luck[0], luck[1], claimed)

    return Claim("a", "A.", "here", lambda _: scan("KL: a ÷ b", at, deciding, range(1, 6)))


def judged(claim):
    (found,) = judge([claim], Results({}, {}))
    return found


def test_undecided_steps_are_named_and_leave_the_verdict():
    found = judged(noisy(lambda step: 1.0 if step == 5 else 2.0))
    assert found.word == "supported"
    assert found.qualification == "As claimed at lengths 1 to 4, undecided at length 5."


def test_beyond_the_margin_of_no_difference_is_not_reversed():
    found = judged(noisy(lambda step: 2.0 if step == 5 else 1.0, Region(0.8, 1.25)))
    assert found.word == "supported in part"
    assert "not as claimed at length 5 (2" in found.qualification


def test_the_other_steps_cost_the_verdict_no_power():
    """The deciding interval of a claim is the same whether the rest of the grid is measured or not."""
    (alone,) = judged(Claim("a", "A.", "here", lambda _: noisy(lambda _: 2.0).estimands(None)[2:3])).estimates
    among = next(one for one in judged(noisy(lambda _: 2.0)).estimates if one.decides)
    assert (alone.joint_low, alone.joint_high) == (among.joint_low, among.joint_high)
    others = [one for one in judged(noisy(lambda _: 2.0)).estimates if not one.decides]
    assert all(one.joint_low < among.joint_low for one in others), "wider: four hold together"


@pytest.fixture
def rows():
    own, control = judge(CLAIMS, world(ratio_at)), judge(CLAIMS, world(lambda length: 3.3 - ratio_at(length)))
    return [row for row in claim_rows("lee2024", own, {"shuffled": {0: control}}, published=False) if row.name == ABOVE]


def test_no_table_shows_the_verdict_alone(rows, tmp_path):
    manifest = {"format": 1, "identity": {"study": "lee2024", "size": "default"}, "record": {"purpose": "study"}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    tables = {
        "text": table_of_claims(tmp_path, [], rows),
        "csv": to_csv(rows).decode(),
        "latex": to_latex(rows, "Claims").decode(),
        "json": json.dumps([row._asdict() for row in rows], ensure_ascii=False),
    }
    for name, text in tables.items():
        words = " ".join(text.split())
        assert "supported in part" in words, name
        assert "reversed at lengths 1 to 11" in words, name


@pytest.mark.parametrize(("number", "names"), [(2, "s0 and s1"), (3, "s0, s1 and s2"), (5, "s0 and 4 others")])
def test_series_with_the_same_outcome_share_a_sentence(number, names):
    alike = [one for at in range(number) for one in series_at(f"s{at}", 1.0 + 0.01 * at)]
    measured = [estimate(one, 5) for one in alike]
    found = qualification([*measured, *(estimate(one, 5) for one in series_at("as claimed", 2.0))])
    farthest = min(measured, key=lambda one: one.distance)
    assert found == f"{names}: not as claimed at lengths 1 to 3 ({farthest} at {farthest.place.at:g})."


def series_at(name, level):
    rng = np.random.default_rng(0)
    values = {step: level * np.exp(0.01 * rng.standard_normal(40)) for step in (1.0, 2.0, 3.0)}
    more = Region(1.25, np.inf)
    return scan(name, lambda label, step: ratio(label, values[step], np.ones(40), more), (1.0,), values)
