"""Control SAEs: SAEs trained on a control, in the place of the model's."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

import tiltmeter as tm
from small_saes import random_sae
from sweep_cases import save_model, save_tokens
from tiltmeter.models.sites import Site
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.evaluation import evaluate
from tiltmeter.saes.fits import fits
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.names import short_names
from tiltmeter.saes.sae import TopK
from tiltmeter.saes.training import trainer
from tiltmeter.studies.control import initialised
from tiltmeter.studies.control_saes import control_saes, why_no_control_sae

LOCAL, END_TO_END = "nano:local-3-l0-12", "nano:e2e-3-l0-13"


@pytest.fixture(scope="module")
def control():
    return initialised(tm.load_model("nano"))


@pytest.fixture(scope="module")
def tokens(control):
    return control.load_tokens("nano", at_most=232)


@pytest.fixture(scope="module")
def held_out(tokens):
    return tokens.first(8)


@pytest.fixture(scope="module")
def texts(tokens):
    return replace(tokens, ids=tokens.ids[32:], documents=tokens.document[32:])


def explained(loaded, sae, tokens, site="resid_pre:3"):
    site = loaded.model.site(site)
    [fit] = fits(loaded.model, [SAEAtSite(sae, site, partial(loaded.model.centre, site=site))], tokens.ids, None)
    return fit


def untrained(k, like, x):
    """Random directions and the mean of the activations; strong, since they are at the best scale for each token."""
    rows = torch.nn.functional.normalize(torch.randn(*like.shape, generator=torch.Generator().manual_seed(0)), dim=-1)
    mean = x.flatten(0, 1).mean(0)

    def reconstruct(x):
        latents = TopK(k)((x - mean) @ rows.T)
        given = latents @ rows
        best = torch.linalg.vecdot(x - mean, given) / torch.linalg.vecdot(given, given)
        return latents, mean + best[..., None] * given

    return reconstruct


@pytest.fixture(scope="module")
def train_both(control, texts, tmp_path_factory):
    """Trains control SAEs for a local and an end-to-end SAE, 40 steps, unless they are trained already."""
    return partial(control_saes, [LOCAL, END_TO_END], control, texts, tmp_path_factory.mktemp("saes"), 20_480)


@pytest.fixture(scope="module")
def control_sae(train_both):
    """The folder of the control SAE for the local SAE."""
    found = train_both()
    assert found.keys() == {LOCAL}
    return found[LOCAL]


def test_a_control_sae_has_site_size_and_l0_of_the_sae(control_sae, control, held_out):
    sae, original = tm.load_sae(control_sae), tm.load_sae(LOCAL)
    about = sae.about
    assert (about.kind, about.architecture, about.hook_name) == ("topk", "topk", original.about.hook_name)
    assert sae.decoder.shape == original.decoder.shape and about.model == control.model.name
    fit = explained(control, sae, held_out)
    assert fit.l0 == pytest.approx(original.about.l0, rel=0.25) and fit.l0 == pytest.approx(about.l0, rel=0.02)
    assert fit.explained_variance == pytest.approx(about.explained_variance, abs=0.05)


def test_a_control_sae_explains_more_than_an_untrained_sae_and_the_model_s_own(control_sae, control, held_out):
    sae, site = tm.load_sae(control_sae), control.model.site("resid_pre:3")
    trained = explained(control, sae, held_out).explained_variance
    beaten = untrained(12, sae.decoder, control.model.activation(held_out.ids, site))
    worse = evaluate(control.model, beaten, held_out.ids, held_out.boundary, site)
    assert worse.l0 == 12 and trained > worse.explained_variance + 0.1
    assert explained(control, tm.load_sae(LOCAL), held_out).explained_variance < 0


def test_a_control_sae_is_trained_once(control_sae, train_both, monkeypatch):
    def trains(*_):
        raise AssertionError("it was trained again")

    before = tm.load_sae(control_sae).about
    monkeypatch.setattr(trainer, "advance", trains)
    assert train_both() == {LOCAL: control_sae} and tm.load_sae(control_sae).about == before


def test_a_sweep_uses_a_control_sae_under_the_name_of_the_sae(control_sae, control, held_out, tmp_path):
    assert short_names([control_sae]) == {"local-3-l0-12": control_sae}
    path = tm.Straight(lengths=(0.5,), unit="pair-distance")
    sweep = tm.Sweep(site="resid_pre:3", directions=("sae-error",), saes=(control_sae,), path=path, sequences=2)
    curves = tm.run_sweep(sweep, control, held_out, tmp_path / "run")
    assert curves.direction.values.tolist() == ["sae-error:local-3-l0-12"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    warnings = manifest["record"]["saes"]["local-3-l0-12"]["load_check"]["warnings"]
    assert not [warning for warning in warnings if "L0" in warning or "explains" in warning]


def save_sae(path, **metadata):
    sae = random_sae(32, 48, seed=len(str(path)))
    save_file(
        {name: getattr(sae, name).float() for name in ("W_enc", "b_enc", "W_dec", "b_dec")},
        path,
        {"apply_b_dec_to_input": "true", "activation": "relu", **metadata},
    )
    return str(path)


@pytest.fixture(scope="module")
def tiny_control(tmp_path_factory):
    return initialised(tm.load_model(str(save_model(tmp_path_factory.mktemp("model")))))


@pytest.fixture(scope="module")
def tiny_tokens(tiny_control, tmp_path_factory):
    file = save_tokens(tmp_path_factory.mktemp("tokens") / "tokens.npy", sequences=96)
    return tiny_control.load_tokens(str(file))


def test_what_the_files_do_not_say_can_be_given(tiny_control, tiny_tokens, tmp_path):
    name = save_sae(tmp_path / "mine.safetensors")
    train = partial(control_saes, [name], tiny_control, tiny_tokens, tmp_path, 1024)
    assert train() == train(l0={name: 5.4}) == train(site=Site(1, "resid_pre")) == {}
    name = save_sae(tmp_path / "other.safetensors", hook_name="blocks.2.hook_resid_pre")
    found = control_saes([name], tiny_control, tiny_tokens, tmp_path / "saes", 1024, {name: 5.4}, Site(1, "resid_pre"))
    sae = tm.load_sae(found[name])
    assert sae.activation == TopK(5) and sae.about.hook_name == "blocks.2.hook_resid_pre"
    assert found == {name: str(tmp_path / "saes" / "other.safetensors")}


@pytest.mark.parametrize(("l0", "k"), [(0.2, 1), (12.5, 12), (1000.0, 48)])
def test_k_is_the_l0_from_one_to_all(l0, k, tiny_control, tiny_tokens, tmp_path):
    name = save_sae(tmp_path / "a.safetensors", hook_name="blocks.1.hook_resid_pre")
    found = control_saes([name], tiny_control, tiny_tokens, tmp_path / "saes", 1024, {name: l0})
    assert tm.load_sae(found[name]).activation == TopK(k)


def test_sae_s_of_one_l0_get_control_saes_that_differ(tiny_control, tiny_tokens, tmp_path):
    names = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        names.append(save_sae(tmp_path / folder / "a.safetensors", hook_name="blocks.1.hook_resid_pre"))
    l0 = dict.fromkeys(names, 4.0)
    found = control_saes(names, tiny_control, tiny_tokens, tmp_path / "saes", 1024, l0)
    assert len(set(found.values())) == 2 and set(found) == set(names)
    assert len({tm.load_sae(one).about.sha256 for one in found.values()}) == 2


def test_a_control_sae_reads_the_stream_that_the_sae_reads(tiny_control, tiny_tokens, tmp_path, monkeypatch):
    sae = random_sae(32, 48, dtype=torch.float32)
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    for processing in ("raw", "centred"):
        facts = Facts(hook_name="blocks.1.hook_resid_pre", processing=processing, l0=4.0)
        one = linear_sae(processing, weights, Convention(), facts)
        with monkeypatch.context() as patch:
            patch.setattr("tiltmeter.studies.control_saes.load_sae", lambda _, one=one: one)
            found = control_saes([processing], tiny_control, tiny_tokens, tmp_path, 1024)
        assert tm.load_sae(found[processing]).about.processing == processing


def test_why_an_sae_has_no_control(tmp_path):
    sentence = why_no_control_sae(tm.load_sae(END_TO_END))
    assert sentence.startswith(f"There is no control SAE for {END_TO_END}: it was trained for the model's")
    assert sentence.endswith(".") and "(e2e)" in sentence
    assert "e2e+ds" in why_no_control_sae(tm.load_sae("nano:e2e+ds-3-l0-13"))
    assert why_no_control_sae(tm.load_sae(LOCAL)) is None
    mine = tm.load_sae(save_sae(tmp_path / "mine.safetensors"))
    assert why_no_control_sae(mine).endswith("its files do not say its L0.")
    assert why_no_control_sae(mine, l0=3.0).endswith("its files do not say to which site it belongs.")
    assert why_no_control_sae(mine, 3.0, Site(1, "resid_pre")) is None
