"""What is measured for each figure of a paper, and what is said of it; on synthetic curves, whose truth is known."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sweep_cases import token_set
from tiltmeter import curves, studies
from tiltmeter.directions import DIRECTIONS
from tiltmeter.errors import TiltmeterError
from tiltmeter.model import SplitModel
from tiltmeter.plan import make_plan
from tiltmeter.studies import STUDIES, find_figure
from tiltmeter.studies.lee2024.figures import FEWEST, PAIRS, describe_figure_1, describe_figure_3, draw_figure_1
from tiny_models import tiny

GRID = [0, 1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 101]
"""The paper's lengths, for activations 81.59 apart."""

SIX = {
    "isotropic",
    "isotropic-difference",
    "cov-random-difference",
    "cov-random-mixture",
    "real-difference",
    "real-mixture",
}
PAIR_DISTANCE = 20.0
STEPS = [length / 81.59 * PAIR_DISTANCE for length in GRID]
HALF = 5
"""Index of the step nearest to half the pair distance: 41 / 81.59."""


@pytest.fixture(scope="module")
def model():
    return SplitModel(tiny("gpt2"))


def standard(sequences, seed=0):
    """Noise of exactly mean zero and standard error one."""
    noise = np.random.default_rng(seed).normal(size=sequences)
    noise -= noise.mean()
    return noise / noise.std(ddof=1) * np.sqrt(sequences)


def synthetic(kl, sequences=40):
    """Curves whose KL at half the pair distance is given by direction (otherwise 1); elsewhere it is the opposite."""
    values = np.ones((len(SIX), len(STEPS), sequences))
    for index, name in enumerate(DIRECTIONS):
        values[index] = -np.asarray(kl.get(name, 1.0))
        values[index, HALF] = kl.get(name, 1.0)
    axes = curves.Axes(tuple(DIRECTIONS), STEPS, "L2", range(sequences))
    readouts = {"kl": values, "l2@blocks.2.hook_resid_post": values, "length": np.zeros_like(values)}
    tokens = np.full((len(SIX), sequences), 8)
    return curves.build(readouts, tokens, axes, {"pair_distance": str(PAIR_DISTANCE)})


def verdict(kl, one="real-difference", other="real-mixture", sequences=40):
    """What the finding says of a pair."""
    said = describe_figure_1(synthetic(kl, sequences))
    (found,) = re.findall(rf"[:;] {one} (above|below|not told apart from) {other} \(", said)
    return found


def test_every_study_has_the_same_inside():
    for name, study in STUDIES.items():
        folder = Path(studies.__file__).parent / name
        assert study.name == name
        assert {"__init__.py", "sweeps.py", "figures.py"} <= {file.name for file in folder.iterdir()}
        for number, figure in study.figures.items():
            assert find_figure(name, number) == (study, figure)
            assert figure.title
            assert figure.caption.endswith(".")


@pytest.mark.parametrize(("study", "figure"), [("lee2023", "1"), ("lee2024", "0"), ("", ""), ("lee2024", "1 ")])
def test_what_is_no_figure(study, figure):
    with pytest.raises(TiltmeterError, match=r"choose from (lee2024|1, 3)\.$"):
        find_figure(study, figure)


@pytest.mark.parametrize("layer", [0, 2])
def test_figure_1_is_measured_as_the_paper_says(model, layer):
    sweep = find_figure("lee2024", "1")[1].sweep(model, layer)
    assert set(sweep.directions) == SIX
    assert sweep.readouts == ("kl", "l2@blocks.2.hook_resid_post")
    assert sweep.site == f"blocks.{layer}.hook_resid_pre"
    assert sweep.positions == "all"
    assert (sweep.bos.statistics, sweep.bos.perturbation, sweep.bos.average) == ("out", "in", "in")
    assert not sweep.keep_positions
    plan = make_plan(sweep.model_copy(update={"sequences": 2}), model, token_set())
    assert plan.positions.perturbed == plan.positions.read == tuple(range(8))


@pytest.mark.parametrize("distance", [81.59, 7.0])
def test_lengths_are_the_papers_on_the_scale_of_the_model(model, distance):
    path = find_figure("lee2024", "1")[1].sweep(model, 1).path.resolved(distance)
    assert path.unit == "absolute"
    assert path.lengths == pytest.approx([length * distance / 81.59 for length in GRID])


@pytest.mark.parametrize("pair", PAIRS)
def test_above_and_below_and_not_told_apart(pair):
    noise = standard(40)
    assert verdict({pair[0]: 5 + noise / 10, pair[1]: 4.0}, *pair) == "above"
    assert verdict({pair[0]: 4 + noise / 10, pair[1]: 5.0}, *pair) == "below"
    assert verdict({pair[0]: 4.5 + noise, pair[1]: 4.5}, *pair) == "not told apart from"
    assert verdict({}, *pair) == "not told apart from"


def test_the_comparison_is_within_sequences():
    """The sequences differ far more than the directions, which differ alike in each."""
    luck = 100 + 10 * standard(40, 1)
    assert verdict({"real-difference": luck + 0.1 + 0.01 * standard(40), "real-mixture": luck}) == "above"
    assert verdict({"real-difference": luck[::-1] + 0.1, "real-mixture": luck}) == "not told apart from"


@pytest.mark.parametrize(("errors", "said"), [(2.25, "not told apart from"), (3.3, "above")])
def test_five_comparisons_must_hold_together(errors, said):
    """A gap of 2.25 standard errors would do for one comparison, not for the luckiest of five."""
    kl = {"real-difference": 9 + errors + standard(400), "real-mixture": 9.0}
    assert verdict(kl, sequences=400) == said


def test_directions_that_do_not_differ_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(40):
        finding = describe_figure_1(synthetic({name: rng.gamma(2, size=40) for name in SIX}))
        told += finding.count("not told apart from") < len(PAIRS)
    assert told <= 6


def test_the_finding_gives_values_and_intervals():
    finding = describe_figure_1(synthetic({"real-difference": 14 + standard(400), "real-mixture": 9.0}, 400))
    (found,) = re.findall(r"real-difference above real-mixture \((.+?) and (.+?); (.+?) to (.+?)\)", finding)
    assert [float(number) for number in found] == pytest.approx([14, 9, 5 - 2.58, 5 + 2.58], abs=0.3)
    assert finding.startswith("At length 10.1, about half the mean distance of two activations (20.0), mean KL in nats")
    assert len(finding.split("; ")) >= len(PAIRS)


def test_a_sequence_that_was_not_measured_is_left_out():
    lost = 5 + standard(40) / 10
    lost[:3] = np.nan
    assert verdict({"real-difference": lost, "real-mixture": 4.0}) == "above"


def test_few_sequences_say_nothing():
    kl = {"real-difference": 9.0, "real-mixture": 1.0}
    few = describe_figure_1(synthetic(kl, FEWEST - 1))
    assert few == f"{FEWEST - 1} sequences are too few to compare directions; measure at least {FEWEST}."
    assert "above" in describe_figure_1(synthetic(kl, FEWEST))


def test_figure_1_has_the_papers_panels():
    data = synthetic({name: 2.0 for name in SIX})
    axes = draw_figure_1(data, curves.summary(data)).axes
    shown = [{line.get_label() for line in panel.get_lines()} for panel in axes]
    assert len(axes) == 8
    assert [panel.get_title() for panel in axes[:4]] == [
        "1a: cov-random",
        "1a: real",
        "1b: difference",
        "1b: mixture",
    ]
    assert shown[:4] == shown[4:]
    assert [sorted(panel - {"isotropic", "isotropic-difference"}) for panel in shown[:4]] == [
        ["cov-random-difference", "cov-random-mixture"],
        ["real-difference", "real-mixture"],
        ["cov-random-difference", "real-difference"],
        ["cov-random-mixture", "real-mixture"],
    ]
    assert set.union(*shown) == SIX
    labels = [panel.get_ylabel().replace("\n", " ") for panel in axes]
    assert labels[0] == "KL(clean ‖ perturbed), nats"
    assert labels[4] == "distance at blocks.2.hook_resid_post, L2"
    assert {panel.get_xlabel() for panel in axes[4:]} == {"perturbation length (L2)"}


def errors(kl, sequences=40):
    """Curves of two local and one e2e SAE whose KL at every length is given by SAE; a baseline's is 1."""
    saes = {"dense": ("local", 30.0), "sparse": ("local", 3.0), "end": ("e2e", 9.0)}
    names = [*(f"sae-error:{sae}" for sae in saes), "isotropic", "cov-random-mixture", "real-mixture"]
    values = np.ones((len(names), len(STEPS), sequences))
    for row, sae in enumerate(saes):
        values[row] = kl.get(sae, 1.0)
    axes = curves.Axes(names, STEPS, "L2", range(sequences))
    readouts = {"kl": values, "l2@blocks.2.hook_resid_post": values, "length": np.zeros_like(values)}
    facts = json.dumps({sae: {"kind": kind, "l0": l0} for sae, (kind, l0) in saes.items()})
    attrs = {"pair_distance": str(PAIR_DISTANCE), "saes": facts}
    return curves.build(readouts, np.full((len(names), sequences), 8), axes, attrs)


def test_figure_3_counts_the_errors_of_each_kind_that_lie_above_and_below():
    noise = standard(40) / 10
    finding = describe_figure_3(errors({"sparse": 3 + noise, "dense": 0.5 + noise, "end": 1 + standard(40)}))
    assert finding.count("local 1 above, 1 below (3, 0.5); e2e 1 not told apart (1).") == 2  # at two lengths
    assert finding.startswith("At length 5.1 (mean KL in nats: isotropic 1, cov-random-mixture 1, real-mixture 1)")
    assert "At length 10.1" in finding
    both = describe_figure_3(errors({"sparse": 3 + noise, "dense": 2 + noise}))
    assert "local 2 above (3, 2); e2e 1 not told apart (1)" in both
    assert "too few" in describe_figure_3(errors({}, FEWEST - 1))


def test_six_comparisons_must_hold_together():
    """2.25 standard errors would do for one comparison, not for the luckiest of six; 3.3 do for six."""
    for gap, said in ((2.25, "1 not told apart"), (3.3, "1 above")):
        kl = {"end": 9 + gap + standard(400), "sparse": 9.0, "dense": 9.0}
        data = errors(kl, 400)
        data.kl.loc[{"direction": "cov-random-mixture"}] = 9.0
        assert f"e2e {said}" in describe_figure_3(data)
