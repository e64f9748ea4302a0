"""Whole studies on two models of which it is known what is there: no plateau at all, and a planted one.

Real activations of both are random vectors of one norm, so that directions and bases hardly differ but where the model
makes them differ. In the model whose blocks do nothing, that is nowhere, except for what the last norm does: along a
straight line it sees the angle from x, and differences turn faster than mixtures.
"""

import importlib
from functools import cache

import numpy as np
import pytest
import torch

from known_models import WIDTH, tokens, with_plateaus, without_plateaus
from small_saes import save_sae
from tiltmeter.models.sites import Site
from tiltmeter.studies import STUDIES
from tiltmeter.studies.claims import judge
from tiltmeter.studies.heimersheim2024.curve_statistics import predicted_later
from tiltmeter.studies.heimersheim2024.experiments import RANDOM
from tiltmeter.studies.lee2024.estimands_saes import FLATTER
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import KnownSAE, Subject

MODELS = {"without": without_plateaus, "with": with_plateaus}
SIZES = {
    "heimersheim2024": {"prompts": 32, "triangles": 20, "side": 2, "statistics": 128},
    "lee2024": {"baselines": 24, "saes": 24, "statistics": 128},
    "giglemiani2024": {"curves": 32, "statistics": 128},
}
LEFT_OUT = {
    "heimersheim2024": ("plane", "straight-draws", "sphere-draws"),
    "lee2024": (
        "directions-early",
        "directions-larger",
        "features",
        "reconstructions",
        "layers-",
        "decoders",
        "shapes",
    ),
    "giglemiani2024": (),
}

HOLDS, FAILS, OPEN = "holds", "fails", "open"
"""Of a claim in a model; open where it is at a border, or about what is only luck there."""

ALLOWED = {HOLDS: {"supported", "inconclusive"}, FAILS: {"contradicted", "inconclusive"}}

HEIMERSHEIM = {
    # claim: without plateaus, with them
    "plateau-short": (FAILS, HOLDS),
    "plateau-medium": (FAILS, HOLDS),
    "plateau-short-l2": (FAILS, HOLDS),
    "plateau-short-cosine": (FAILS, HOLDS),
    "plateau-short-transplanted": (FAILS, HOLDS),
    "random-base-rises-at-once": (FAILS, HOLDS),
    "real-base-flat-to-40-degrees": (FAILS, HOLDS),
    "real-direction-stronger": (FAILS, OPEN),  # in the middle of the plateau, no direction does anything
    "real-direction-earlier-sphere": (FAILS, HOLDS),
    "real-direction-earlier-sphere-relative": (FAILS, HOLDS),
    "real-direction-earlier-straight": (FAILS, HOLDS),
    "real-direction-earlier-straight-relative": (FAILS, HOLDS),
    "real-direction-stronger-l2": (FAILS, OPEN),
    "real-direction-earlier-l2": (FAILS, HOLDS),
    "threshold-tells-directions-apart": (FAILS, HOLDS),
    "naive-random-less-sensitive": (FAILS, FAILS),  # these embeddings are isotropic
    "naive-random-much-less-sensitive": (FAILS, FAILS),
    "last-layer-no-order": (HOLDS, HOLDS),
    "last-layer-no-order-relative": (HOLDS, HOLDS),
    "last-layer-same-angle": (HOLDS, HOLDS),
    "last-layer-same-angle-relative": (HOLDS, HOLDS),
    "last-layer-gap-smaller": (FAILS, HOLDS),
    "last-layer-gap-smaller-relative": (FAILS, HOLDS),
    "real-corner-local-optimum": (FAILS, HOLDS),
    "real-corner-local-optimum-relative": (FAILS, HOLDS),
    "real-corner-stands-out": (FAILS, HOLDS),
    "real-corner-stands-out-relative": (FAILS, HOLDS),
    "random-triangle-symmetric": (HOLDS, HOLDS),
    "random-triangle-symmetric-relative": (HOLDS, HOLDS),
}
LEE = {
    "cov-random-difference-above-mixture": (FAILS, FAILS),  # at 21; at 51 and 81 the last norm alone makes it true
    "real-difference-above-mixture": (FAILS, FAILS),
    "cov-random-difference-not-above-mixture-at-constant-norm": (HOLDS, HOLDS),
    "real-difference-not-above-mixture-at-constant-norm": (HOLDS, OPEN),  # differences end at a stored activation
    "difference-above-mixture-in-l2": (FAILS, FAILS),
    "cov-random-mixture-above-isotropic": (FAILS, FAILS),
    "cov-random-mixture-above-isotropic-in-l2": (FAILS, FAILS),
    "real-difference-above-cov-random-difference": (FAILS, OPEN),
    "real-difference-above-cov-random-difference-in-l2": (FAILS, OPEN),
    "real-mixture-above-cov-random-mixture": (OPEN, OPEN),
    "real-mixture-near-cov-random-mixture": (HOLDS, OPEN),
    "real-mixture-near-cov-random-mixture-in-l2": (HOLDS, OPEN),
    "late-distance-linear-at-first": (HOLDS, HOLDS),
    "errors-plateau": (FAILS, HOLDS),
    "errors-linear-after-plateau": (FAILS, OPEN),
    "errors-local-near-cov-random": (HOLDS, OPEN),
    "errors-local-near-cov-random-in-l2": (HOLDS, OPEN),
}
GIGLEMIANI = {
    "step-like": (FAILS, HOLDS),
    "real-before-random": (FAILS, HOLDS),
    "plateaus-real-above-random": (FAILS, HOLDS),
}
TRUTH = {"heimersheim2024": HEIMERSHEIM, "lee2024": LEE, "giglemiani2024": GIGLEMIANI}
"""What is known of every claim that these experiments test."""

DECIDED = {
    "heimersheim2024": ("plateau-", "random-base-rises", "real-base-flat", "last-layer-gap"),
    "lee2024": ("late-distance", "difference-above-mixture-in-l2", "cov-random-mixture-above-isotropic"),
    "giglemiani2024": ("real-before-random",),
}
"""Beginnings of claims that are decided in both models, even by so few sequences."""


@pytest.fixture(scope="module")
def sae(tmp_path_factory):
    """An SAE whose errors are a random rotation of x, shortened: as far from x's own direction as random vectors are."""
    noise = 0.3 / WIDTH**0.5 * torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(5))
    whole = torch.eye(WIDTH)
    weights = {
        "W_enc": torch.cat([whole, -whole], 1),
        "b_enc": torch.zeros(2 * WIDTH),
        "W_dec": torch.cat([whole + noise, -whole - noise]),
        "b_dec": torch.zeros(WIDTH),
    }
    folder = save_sae(tmp_path_factory.mktemp("sae") / "sae", width=WIDTH, weights=weights)
    return KnownSAE(str(folder), Site(1, "resid_pre"), "local", 64.0)


@pytest.fixture(scope="module")
def results(sae, tmp_path_factory):
    """What a study measures on a model."""

    @cache
    def measured(study, model):
        subject = Subject(MODELS[model](), 1, (sae,) if study == "lee2024" else ())
        scales = importlib.import_module(f"tiltmeter.studies.{study}.experiments").SCALES
        with pytest.MonkeyPatch.context() as patched:
            patched.setitem(scales, "quick", scales["quick"]._replace(**SIZES[study]))
            planned = STUDIES[study].experiments(subject, "quick")
        wanted = {name: one for name, one in planned.items() if hasattr(one, "run")}
        folder = tmp_path_factory.mktemp(study)
        found = {
            name: one.run(subject.loaded, tokens(128), folder / name, name)
            for name, one in wanted.items()
            if not name.startswith(LEFT_OUT[study] or ("no experiment",))
        }
        return Results(found, {})

    return measured


@pytest.fixture(scope="module")
def verdicts(results):
    """The verdicts of a study on a model, by claim."""

    @cache
    def judged(study, model):
        return {verdict.claim.name: verdict for verdict in judge(STUDIES[study].claims, results(study, model))}

    return judged


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("study", TRUTH)
def test_no_verdict_is_wrong_and_the_clear_ones_are_given(study, model, verdicts):
    found = {name: one.word for name, one in verdicts(study, model).items() if one.word != "not tested"}
    assert found.keys() == TRUTH[study].keys()
    known = {name: both[list(MODELS).index(model)] for name, both in TRUTH[study].items()}
    wrong = {name: word for name, word in found.items() if known[name] != OPEN and word not in ALLOWED[known[name]]}
    assert not wrong
    decided = {name for name in known if name.startswith(DECIDED[study])}
    assert {name: found[name] for name in decided if found[name] == "inconclusive"} == {}


def test_the_last_norm_alone_makes_differences_stronger_on_straight_lines_and_not_at_constant_norm(verdicts):
    """A plain norm and unembedding: nothing was learned that could tell differences from mixtures."""
    found = verdicts("lee2024", "without")
    for kind in ("cov-random", "real"):
        far = {one.place.at: one for one in found[f"{kind}-difference-above-mixture"].estimates}
        assert far[51.0].value > 1.5 and far[81.0].value > 1.5 and far[1.0].value < 1.1
        for one in found[f"{kind}-difference-not-above-mixture-at-constant-norm"].estimates:
            assert one.value == pytest.approx(1.0, abs=0.1)


def test_errors_have_the_plateau_that_is_there(verdicts):
    numbers = [verdicts("lee2024", model)["errors-plateau"].estimates[0].value for model in MODELS]
    assert numbers[0] > FLATTER.high > numbers[1]


def test_an_error_against_x_has_a_plateau_that_the_last_norm_makes_alone(tmp_path):
    """An SAE that never fires: its error is -x, to which a norm is blind. The claim's remark and the docs say so."""
    folder = save_sae(tmp_path / "sae", width=WIDTH, bias=-50.0)
    subject = Subject(without_plateaus(), 1, (KnownSAE(str(folder), Site(1, "resid_pre"), "local", 1.0),))
    errors = STUDIES["lee2024"].experiments(subject, "quick")["errors"]
    found = Results({"errors": errors.run(subject.loaded, tokens(128), tmp_path / "errors", "errors")}, {})
    (verdict,) = judge([one for one in STUDIES["lee2024"].claims if one.name == "errors-plateau"], found)
    assert verdict.word == "supported" and "The last norm alone" in verdict.claim.remark


def test_small_steps_predict_a_curve_without_plateaus_and_not_one_with(results):
    def median(model, experiment):
        return np.nanmedian(predicted_later(results("heimersheim2024", model)[experiment], RANDOM))

    for base in ("sphere", "sphere-random-base"):
        assert median("without", base) == pytest.approx(1.0, abs=0.1)
    assert median("with", "sphere") > 10 and median("with", "sphere-random-base") < 5
