"""Gurnee 2024: claims judged where the truth is known, figures against their data, and all of it on a small model."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from gurnee_worlds import LAYERS, SEQUENCES, STUDY_LAYER, results
from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.reports.charts.chart import Bars, HeatMap, Histogram, Line, Rule
from tiltmeter.reports.charts.mpl import draw
from tiltmeter.studies.claims import judge
from tiltmeter.studies.gurnee2024 import STUDY
from tiltmeter.studies.gurnee2024.claims import CLAIMS
from tiltmeter.studies.gurnee2024.experiments import INTERVENTIONS, SCALES, Scale
from tiltmeter.studies.gurnee2024.figures import by_position, distributions, gap_correlations
from tiltmeter.studies.gurnee2024.top_tokens import worst
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.study import KnownSAE, Subject

NAMED = {claim.name: claim for claim in CLAIMS}

AGAINST = {
    "sae-above-epsilon-random": {"sae": 0.7},
    "kl-ratio-as-published": {"sae": 1.6},
    "loss-above-epsilon-random": {"loss_sae": 0.5},
    "loss-ratio-as-published": {"loss_sae": 1.3},
    "whole-distribution-shifted": {"sae": 0.7},
    "norm-corrected-similar": {"norm": 1.5},
    "not-shrinkage": {"norm": 0.7},
    "three-clusters": {"norm": 0.8},
    "random-points-alike": {"theta": 2.0},
    "norm-change-smallest": {"cos": 0.9},
    "single-token-gap": {"at_token": 1.2},
    "next-token-gap": {"at_next": 1.2},
    "gap-persists": {"late": 0.6},
    "gap-persists-more-in-early-layers": {"first_after": 0.1, "last_after": 0.5},
    "single-token-smaller": {"alone": 1.6},
    "gap-varies": {"bad": 0.0, "typical": 1.0},
    "gap-with-position": {"with_position": 0.0},
    "gap-grows-with-angle": {"with_cosine": 0.5},
    "gap-hardly-with-l0": {"with_l0": 1.0},
    "l0-with-cosine": {"l0_with_cosine": 0.0},
    "top-tokens-vary": {"by_token": 1.0},
    "gap-not-with-frequency": {"with_frequency": 0.6},
    "gap-most-with-other-layers": {"between": 0.0},
    "attention-ratio-as-published": {"heads": 2.5},
    "attention-gap-smaller": {"heads": 5.0},
    "attention-norm-matters-more": {"heads_norm": 1.6},
    "sae-worse-at-high-cosine": {"high": 0.7},
    "sae-better-at-low-cosine": {"low": 1.5},
}
"""A world in which each claim is false."""

BETWEEN = {
    "sae-above-epsilon-random": {"sae": 2.0},
    "kl-ratio-as-published": {"sae": 2.2},
    "loss-above-epsilon-random": {"loss_sae": 1.25},
    "loss-ratio-as-published": {"loss_sae": 2.0},
    "whole-distribution-shifted": {"sae": 1.25},
    "norm-corrected-similar": {"norm": 2.4},
    "not-shrinkage": {"norm": 1.3125},
    "three-clusters": {"norm": 1.3125},
    "random-points-alike": {"theta": 1.25},
    "norm-change-smallest": {"cos": 0.5},
    "single-token-gap": {"at_token": 2.0},
    "next-token-gap": {"at_next": 2.0},
    "gap-persists": {"late": 1.25},
    "gap-persists-more-in-early-layers": {"first_after": 0.375, "last_after": 0.3},
    "single-token-smaller": {"alone": 0.8},
    "gap-varies": {"bad": 0.1, "typical": 0.9},
    "gap-with-position": {"with_position": 0.25},
    "gap-grows-with-angle": {"with_cosine": -0.1},
    "gap-hardly-with-l0": {"with_l0": 0.228},
    "l0-with-cosine": {"l0_with_cosine": 0.112},
    "gap-not-with-frequency": {"with_frequency": 0.1},
    "attention-ratio-as-published": {"heads": 1.7},
    "attention-gap-smaller": {"heads": 2.4},
    "attention-norm-matters-more": {"heads_norm": 1.3},
    "sae-worse-at-high-cosine": {"high": 1.25},
    "sae-better-at-low-cosine": {"low": 0.8},
}
"""A world in which each claim cannot be told: the number lies on the border."""


def word(name, found):
    return judge([NAMED[name]], found)[0].word


def test_every_claim_has_its_worlds():
    assert set(NAMED) == set(AGAINST)
    assert len(NAMED) == len(CLAIMS)
    assert all(claim.sentence.endswith(".") and claim.source for claim in CLAIMS)


def test_where_the_paper_is_right_every_claim_is_supported():
    found = {verdict.claim.name: verdict for verdict in judge(CLAIMS, results())}
    assert {name: one.word for name, one in found.items()} == dict.fromkeys(NAMED, "supported"), [
        (one.claim.name, str(one.deciding), one.reason) for one in found.values() if one.word != "supported"
    ]


@pytest.mark.parametrize("name", AGAINST)
def test_where_it_is_wrong_the_claim_is_contradicted(name):
    assert word(name, results(**AGAINST[name])) == "contradicted"


@pytest.mark.parametrize("name", BETWEEN)
def test_on_the_border_nothing_is_decided(name):
    assert word(name, results(seed=5, **BETWEEN[name])) == "inconclusive"


def test_one_layer_is_enough_to_contradict_all_layers():
    found = dict(results())
    found["layers-1"] = results(sae=0.7)["layers-1"]
    assert word("sae-above-epsilon-random", Results(found, {})) == "contradicted"


def test_one_layer_of_several_is_not_all_layers():
    found = {name: one for name, one in results().items() if not name.endswith("-0")}
    alone = Results(found, {"layers-0": "No SAE.", "tokens-0": "No SAE.", "single-0": "No SAE."})
    about_all = {name for name, claim in NAMED.items() if claim.sentence.startswith("In all layers")}
    assert len(about_all) == 10
    for name in about_all:
        verdict = judge([NAMED[name]], alone)[0]
        assert (verdict.word, verdict.reason) == (
            "not tested",
            "The claim is about all layers; only layer 1 was measured.",
        )
    assert word("single-token-gap", alone) == "supported"
    assert STUDY.figures["2"].finding(alone)
    assert word("sae-above-epsilon-random", Results(found, {})) == "supported"  # a model of one layer


def test_the_last_layer_does_not_decide_about_the_next_token():
    found = dict(results())
    found["single-1"] = results(at_next=1.2)["single-1"]
    assert word("next-token-gap", Results(found, {})) == "supported"
    found["single-0"] = results(at_next=1.2)["single-0"]
    assert word("next-token-gap", Results(found, {})) == "contradicted"


def test_a_loss_that_no_random_point_raises_has_no_ratio():
    found = dict(results())
    for name in ("layers-0", "layers-1"):
        one = found[name]
        one.loss.loc[{"direction": "epsilon-random:A"}] = one.loss.sel(direction="epsilon-random:A") - 9
    verdict = judge([NAMED["loss-ratio-as-published"]], Results(found, {}))[0]
    assert (verdict.word, verdict.reason[:17]) == ("not tested", "Not defined here:")


def test_an_l0_that_does_not_vary_is_no_predictor():
    found = dict(results())
    found["tokens-1"] = found["tokens-1"].assign(l0=found["tokens-1"].l0 * 0 + 32)
    fixed = Results(found, {})
    assert word("gap-hardly-with-l0", fixed) == "not tested"
    assert word("gap-most-with-other-layers", fixed) == "supported"
    assert "L0 (which does not vary)" in STUDY.figures["9"].finding(fixed)
    assert "L0 (does not vary)" in [panel.title for panel in STUDY.figures["9"].chart(fixed).panels]


@pytest.mark.parametrize("name", NAMED)
def test_what_was_not_measured_is_not_tested(name):
    why = "No SAE was given."
    empty = Results({}, {need: why for figure in STUDY.figures.values() for need in figure.needs})
    verdict = judge([NAMED[name]], empty)[0]
    assert (verdict.word, verdict.reason) == ("not tested", why)


def test_an_saes_gap_is_that_of_means_over_sequences():
    found = results()
    (first, _) = NAMED["sae-above-epsilon-random"].estimands(found)
    kl = found["layers-0"].kl.isel(step=0, position=slice(0, -1))
    means = kl.mean("position").mean("sequence")
    expected = float(means.sel(direction="sae-error:A") / means.sel(direction="epsilon-random:A"))
    assert first.statistic(first.rows) == pytest.approx(expected)


def test_quantiles_are_over_tokens():
    found = results()
    estimand = NAMED["whole-distribution-shifted"].estimands(found)[2]
    assert estimand.label.startswith("layer 0: 90% quantile")
    kl = found["layers-0"].kl.isel(step=0).to_numpy()[:, :, :-1]
    assert estimand.statistic(estimand.rows) == pytest.approx(np.quantile(kl[0], 0.9) / np.quantile(kl[2], 0.9))


def test_the_loss_increase_is_over_the_clean_loss():
    found = results()
    estimand = NAMED["loss-ratio-as-published"].estimands(found)[0]
    loss = found["layers-0"].loss.isel(step=0).to_numpy()[:, :, :-1]
    clean = found["tokens-0"].loss.to_numpy()[:, :-1]
    assert estimand.statistic(estimand.rows) == pytest.approx((loss[0] - clean).mean() / (loss[2] - clean).mean())


def marks(chart, kind):
    return [mark for panel in chart.panels for mark in panel.marks if isinstance(mark, kind)]


def test_figure_2_shows_the_means():
    found = results()
    bars = {bar.name: bar for bar in marks(STUDY.figures["2"].chart(found), Bars)}
    assert set(bars) == set(INTERVENTIONS)
    for layer in LAYERS:
        kl = found[f"layers-{layer}"].kl.isel(step=0, position=slice(0, -1)).mean(("sequence", "position"))
        for kind, bar in bars.items():
            assert bar.y[layer] == pytest.approx(float(kl.sel(direction=f"{kind}:A")))
            assert bar.low[layer] < bar.y[layer] < bar.high[layer]


@pytest.mark.parametrize(("number", "edge"), [("3", distributions.MOST_KL), ("4", distributions.MOST_LOSS)])
def test_histograms_lose_no_token(number, edge):
    found = results()
    for histogram in marks(STUDY.figures[number].chart(found), Histogram):
        assert histogram.counts.sum() == SEQUENCES * 39
        assert histogram.edges[-1] == edge
    kl = found["layers-0"].kl.sel(direction="sae-error:A").isel(step=0, position=slice(0, -1)).to_numpy()
    first = marks(STUDY.figures["3"].chart(found), Histogram)[0]
    assert first.counts[-1] == (kl >= first.edges[-2]).sum()


def test_positions_are_averaged_in_windows_until_there_are_enough(monkeypatch):
    found = results()
    kl = found["layers-0"].kl.sel(direction="sae-error:A").isel(step=0, position=slice(0, -1)).to_numpy()
    line = marks(STUDY.figures["5"].chart(found), Line)[0]
    assert line.x.tolist() == [3.5, 11.5, 19.5, 27.5, 35.0]
    assert line.y == pytest.approx([kl[:, at : at + 8].mean() for at in range(0, 39, 8)])
    monkeypatch.setattr(by_position, "ENOUGH", 120)
    line = marks(STUDY.figures["5"].chart(found), Line)[0]
    assert line.x.tolist() == list(range(39))
    assert line.y == pytest.approx(kl.mean(0))


def test_one_tokens_random_points_are_counted_and_its_sae_marked():
    found = results()
    chart = STUDY.figures["8"].chart(found)
    kl = found["draws"].kl.isel(step=0)
    for panel in chart.panels[:-1]:
        histogram, rule = panel.marks
        assert isinstance(rule, Rule)
        sequence = int(panel.title.split(":")[0].removeprefix("sequence "))
        own = kl.isel(sequence=sequence)
        assert rule.at == pytest.approx(float(own[0]))
        assert histogram.counts.sum() == 20
        random = own[1:].to_numpy()
        deviations = (rule.at - random.mean()) / random.std(ddof=1)
        assert panel.title.endswith(f"{deviations:+.1f} std")
    assert chart.panels[-1].marks[0].counts.sum() == 200


def test_groups_by_a_predictor_hold_equally_many_tokens():
    rng = np.random.default_rng(0)
    by, values = rng.normal(size=(30, 24)), rng.normal(size=(30, 24))
    values += 3 * by
    found = gap_correlations.trend(by, values)
    assert len(found.x) == gap_correlations.GROUPS
    order = np.argsort(by.ravel())
    groups = np.array_split(order, gap_correlations.GROUPS)
    assert found.x == pytest.approx([by.ravel()[group].mean() for group in groups])
    assert (found.low <= found.mean).all() and (found.mean <= found.high).all()
    assert np.corrcoef(found.x, found.mean)[0, 1] > 0.95
    ties = gap_correlations.trend(np.ones((30, 24)), values)
    assert ties.mean == pytest.approx([values.mean()])


def test_gaps_of_layers_are_correlated_token_by_token():
    found = results(between=0.5)
    (mark,) = marks(STUDY.figures["10"].chart(found), HeatMap)
    kl = [found[f"layers-{layer}"].kl.isel(step=0).to_numpy()[:, :, :-1] for layer in LAYERS]
    gaps = [(one[0] - one[2]).ravel() for one in kl]
    assert mark.z[0, 1] == mark.z[1, 0] == pytest.approx(np.corrcoef(*gaps)[0, 1])
    assert np.isnan(np.diag(mark.z)).all()


def test_the_worst_tokens_are_a_table_of_their_gaps():
    found = results()
    kl = found[f"layers-{STUDY_LAYER}"].kl.isel(step=0).to_numpy()[:, :, :-1]
    token = found[f"tokens-{STUDY_LAYER}"].token.to_numpy()[:, :-1]
    gaps = pd.Series((kl[0] - kl[2]).ravel()).groupby(token.ravel())
    table = pd.DataFrame({"mean": gaps.mean(), "std": gaps.std(), "n": gaps.size()})
    table = table[table.n >= 5].sort_values("mean", ascending=False).head(20)
    top = worst(found)
    assert top.mean == pytest.approx(table["mean"].to_numpy())
    assert top.spread == pytest.approx(table["std"].to_numpy())
    assert top.names[0] == f"'w{table.index[0]}' ({table.n.iloc[0]})"


def test_variances_within_tokens_are_those_of_pandas():
    found = results()
    kl = found[f"layers-{STUDY_LAYER}"].kl.isel(step=0).to_numpy()[:, :, :-1]
    token = found[f"tokens-{STUDY_LAYER}"].token.to_numpy()[:, :-1]
    gaps = pd.Series((kl[0] - kl[2]).ravel()).groupby(token.ravel())
    top = gaps.mean().sort_values(ascending=False).index[:20]
    (estimand,) = NAMED["top-tokens-vary"].estimands(found)
    expected = gaps.var()[top].mean() / gaps.mean()[top].var()
    assert estimand.statistic(estimand.rows) == pytest.approx(expected)


WEAK = {"sae": 1.3, "loss_sae": 1.5, "at_token": 1.2, "bad": 0.2, "heads": 0.8, "between": 0.3}
MEASURED = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12")


@pytest.mark.parametrize("number", MEASURED)
def test_findings_are_sentences_with_the_numbers_of_the_world(number):
    strong, weak = (STUDY.figures[number].finding(results(**changes)) for changes in ({}, WEAK))
    assert strong.endswith(".") and any(letter.isdigit() for letter in strong)
    assert strong != weak


def test_a_finding_says_in_how_many_layers():
    assert "above 1 in 2 and below 1 in 0 of 2 layers" in STUDY.figures["2"].finding(results())
    assert "above 1 in 0 and below 1 in 2 of 2 layers" in STUDY.figures["2"].finding(results(sae=0.5))
    said = STUDY.figures["8"].finding(results())
    assert said.startswith("200 tokens with 20 random points each")


def test_figures_say_why_they_are_not_there():
    for figure in STUDY.figures.values():
        with pytest.raises(NotMeasured, match="No SAE"):
            figure.chart(Results({}, {need: "No SAE was given." for need in figure.needs}))


# On a model


WIDTH, CONTEXT = 32, 60


def shrinking(amount):
    """An SAE whose latents are the coordinates and their opposites, where they are above some size, less that."""
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    return {"W_enc": both.T.clone(), "b_enc": torch.full((2 * WIDTH,), -amount), "W_dec": both}


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saes")
    config = transformers.GPT2Config(
        n_embd=WIDTH, n_head=4, n_layer=2, n_positions=CONTEXT, vocab_size=61, bos_token_id=0, eos_token_id=0
    )
    hf = transformers.GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in hf.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 0.27 * noise if parameter.ndim > 1 else parameter.data + 0.3 * noise
    places = [
        (Site(0, "resid_pre"), 0.2),
        (Site(1, "resid_pre"), 0.3),
        (Site(1, "resid_pre"), 0.6),
        (Site(1, "z"), 0.1),
    ]
    saes = []
    for number, (site, shrinkage) in enumerate(places):
        saved = save_sae(folder / str(number), hook=site.name, weights=shrinking(shrinkage))
        saes.append(KnownSAE(str(saved), site, "local", 9.0))
    return Subject(LoadedModel(SplitModel(hf), None, {"sha256": "0"}), 1, tuple(saes))


@pytest.fixture(scope="module")
def measured(subject, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCALES, "quick", Scale(12, 12, 12, 6, 12, 12))
        experiments = STUDY.experiments(subject, "quick")
    tokens = token_set(17, 52)
    found = {
        name: one.run(subject.loaded, tokens, folder / name, f"gurnee2024/{name}")
        for name, one in experiments.items()
        if not isinstance(one, NotMeasured)
    }
    missing = {name: one.reason for name, one in experiments.items() if isinstance(one, NotMeasured)}
    return Results(found, missing), tokens, folder


def test_the_whole_study_on_a_small_model(measured):
    found, _, _ = measured
    assert found.missing == {"attention-0": "No SAE at blocks.0.attn.hook_z was given that was trained to reconstruct."}
    words = {verdict.claim.name: verdict.word for verdict in judge(CLAIMS, found)}
    undefined = {name for name, word in words.items() if word == "not tested"}
    assert undefined <= {"attention-norm-matters-more"}, "a share of no gap"
    for figure in STUDY.figures.values():
        draw(figure.chart(found))
        assert figure.finding(found).endswith(".")


def test_experiments_that_nothing_rests_on_are_named(subject):
    experiments = STUDY.experiments(subject, "default")
    assert STUDY.uncontrolled <= set(experiments)
    needed = {need for figure in STUDY.figures.values() for need in figure.needs}
    assert {name if name in needed else name.rpartition("-")[0] for name in experiments} == needed


def test_too_short_a_context_is_said():
    config = transformers.GPT2Config(n_embd=8, n_head=2, n_layer=2, n_positions=16, vocab_size=11)
    hf = transformers.GPT2LMHeadModel(config)
    short = Subject(LoadedModel(SplitModel(hf), None, {"sha256": "0"}), 1, ())
    (only,) = STUDY.experiments(short, "quick").values()
    assert only == NotMeasured("The paper's sequences have 49 tokens or more; this model reads 16.")


def test_random_points_are_as_far_away_or_at_the_same_angle(measured):
    found, _, _ = measured
    curves = found["layers-1"].isel(step=0)
    (sae,) = {name.partition(":")[2] for name in map(str, curves.direction.values)} - {""}
    length = curves.length.sel(direction=f"epsilon-random:{sae}") / curves.length.sel(direction=f"sae-error:{sae}")
    assert np.allclose(length, 1, rtol=1e-4)
    cosine = curves["cos@blocks.1.hook_resid_pre"]
    pair = (cosine.sel(direction=f"{kind}:{sae}").to_numpy() for kind in ("theta-random-sae-norm", "sae-error"))
    np.testing.assert_allclose(*pair, atol=1e-4)
