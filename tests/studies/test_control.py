"""The control: random weights of the same shape, and the SAEs that are trained on them."""

import json
import math
import socket
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

import tiltmeter as tm
from small_saes import random_sae
from sweep_cases import save_model, save_tokens, token_set
from tiltmeter.models.clean_run import LateActivations
from tiltmeter.models.fingerprint import fingerprint
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.self_check import check_split
from tiltmeter.models.sites import Site
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.evaluation import evaluate
from tiltmeter.saes.fits import fits
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.names import short_names
from tiltmeter.saes.sae import TopK
from tiltmeter.saes.training import trainer
from tiltmeter.studies.control import control_saes, random_weights, why_no_control_sae
from tiny_models import FAMILIES, random_tokens, tiny

ATTENTIONS = [(family, attention) for family, parts in FAMILIES.items() for attention in parts.attentions]
LOCAL, END_TO_END = "nano:local-3-l0-12", "nano:e2e-3-l0-13"


def loaded_tiny(family="gpt2", attention="eager", dtype=torch.float64):
    return tm.LoadedModel(tm.SplitModel(tiny(family, attention, dtype), family), None, {"precision": "as it is"})


def weights(loaded):
    return loaded.model.hf.state_dict()


def same_bytes(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def nano():
    return tm.load_model("nano")


@pytest.fixture(scope="module")
def control(nano):
    return random_weights(nano)


@pytest.fixture(scope="module")
def tokens(nano):
    return nano.load_tokens("nano", at_most=232)


@pytest.fixture(scope="module")
def held_out(tokens):
    return tokens.first(8)


@pytest.fixture(scope="module")
def texts(tokens):
    return replace(tokens, ids=tokens.ids[32:], documents=tokens.document[32:])


@pytest.mark.parametrize(("family", "attention"), ATTENTIONS)
def test_everything_but_the_weights_is_the_original_s(family, attention):
    loaded = loaded_tiny(family, attention)
    hf, original = random_weights(loaded).model.hf, loaded.model.hf
    assert type(hf) is type(original) and not hf.training
    assert hf.config._attn_implementation == original.config._attn_implementation == attention
    own, theirs = dict(hf.named_parameters()), dict(original.named_parameters())
    assert [(name, p.shape, p.dtype) for name, p in own.items()] == [(n, p.shape, p.dtype) for n, p in theirs.items()]
    assert not any(p.requires_grad for p in own.values())
    assert not any(torch.equal(p, theirs[name]) for name, p in own.items())  # tiny models have random norms, too
    buffers = dict(original.named_buffers())
    assert dict(hf.named_buffers()).keys() == buffers.keys()
    for name, buffer in hf.named_buffers():
        assert torch.equal(buffer, buffers[name]) and buffer.dtype == buffers[name].dtype
        assert buffer.data_ptr() != buffers[name].data_ptr()
    tied = [m.get_input_embeddings().weight is m.get_output_embeddings().weight for m in (hf, original)]
    assert tied == [original.config.tie_word_embeddings] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_its_class_initialises_it(family):
    hf = random_weights(loaded_tiny(family)).model.hf
    spread = hf.config.initializer_range
    assert float(hf.get_input_embeddings().weight.std()) == pytest.approx(spread, rel=0.1)
    norms = [p for name, p in hf.named_parameters() if "norm" in name or "ln_" in name]
    assert norms and all(len(set(p.tolist())) == 1 for p in norms)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_can_be_split_and_resumed(family):
    model, tokens = random_weights(loaded_tiny(family)).model, random_tokens()
    for name in ("resid_pre:1", "attn_out:1", "mlp_out:0", "z:2"):
        clean = model.start(tokens, model.site(name))
        check_split(model, clean)
        assert torch.isfinite(model.logits(clean.late.final[0])).all()
        again = torch.stack([clean.late.final, model.resume(clean, clean.activation).final])
        kl = compute_readouts(
            model, clean, LateActivations(again - clean.late.final, {}), [Readout("kl")], range(tokens.shape[1])
        )["kl"]
        assert not kl[0].any() and kl[1].max() < 1e-20


def test_a_seed_is_a_model():
    loaded = loaded_tiny()
    one, again, other = (random_weights(loaded, seed) for seed in (3, 3, 4))
    assert same_bytes(weights(one), weights(again)) and one.facts == again.facts
    assert not same_bytes(weights(one), weights(other)) and one.facts["sha256"] != other.facts["sha256"]
    for seed in (-1, 2**63):
        with pytest.raises(tm.TiltmeterError, match=f"^The seed of random weights is {seed}; expected 0 to"):
            random_weights(loaded, seed)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_in_double_precision_it_is_the_same_model(family):
    single, double = (random_weights(loaded_tiny(family, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    assert {value.dtype for value in weights(single).values()} == {torch.float32}
    assert same_bytes({name: value.double() for name, value in weights(single).items()}, weights(double))


def test_random_state_and_defaults_neither_change_nor_matter():
    loaded, seen = loaded_tiny("neox-parallel"), []
    try:
        for seed, dtype in ((5, torch.float32), (6, torch.float64)):
            torch.manual_seed(seed)
            torch.set_default_dtype(dtype)
            before = torch.get_rng_state()
            seen.append(weights(random_weights(loaded)))
            assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert same_bytes(*seen)


def test_of_a_model_from_the_disk_in_double_precision(tmp_path):
    loaded = tm.load_model(str(save_model(tmp_path, "gemma2")), precision="float64")
    original, config = loaded.model.hf, loaded.model.hf.config.to_dict()
    hf = random_weights(loaded).model.hf
    own, theirs = dict(hf.named_buffers()), dict(original.named_buffers())
    assert {buffer.dtype for buffer in theirs.values()} == {torch.float32, torch.float64}  # angles, and a scale
    assert same_bytes(own, theirs) and all(own[name].dtype == theirs[name].dtype for name in own)
    assert original.config.to_dict() == config


def test_the_original_stays_as_it_is_and_no_hub_is_asked(nano, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    before = {name: value.clone() for name, value in weights(nano).items()}
    config = nano.model.hf.config.to_dict()
    random_weights(nano, 1)
    assert same_bytes(before, weights(nano)) and nano.model.hf.config.to_dict() == config


def test_a_run_says_what_it_was_made_from(tmp_path):
    loaded = tm.load_model(str(save_model(tmp_path / "model")))
    control, tokens = random_weights(loaded, 2), token_set()
    sweep = tm.Sweep(site="resid_pre:1", path=tm.Straight(lengths=(0, 1)), sequences=4)
    tm.run_sweep(sweep, control, tokens, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    name = f"{loaded.model.name} with random weights"
    assert control.model.name == name
    assert manifest["record"]["model"] == {"name": name, "revision": "random weights, seed 2"}
    changed = {"name", "revision", "sha256"}
    own = {key: value for key, value in control.facts.items() if key not in ("name", "revision")}
    assert manifest["identity"]["model"] == own | fingerprint(control.model)
    assert own["sha256"] == fingerprint(control.model)["sha256"]
    assert {key for key in loaded.facts if loaded.facts[key] != control.facts[key]} == changed
    with pytest.raises(tm.TiltmeterError, match=r"another configuration.*sha256"):
        tm.run_sweep(sweep, loaded, tokens, tmp_path / "run")


def test_it_predicts_nothing(nano, control, held_out):
    def loss(loaded):
        logits = loaded.model.hf(input_ids=held_out.ids).logits[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), held_out.ids[:, 1:].flatten()))

    uniform = math.log(nano.model.vocabulary)
    assert loss(control) == pytest.approx(uniform, abs=0.05)  # 8.338 and 8.318
    assert loss(nano) < 0.5 * uniform


def test_what_moves_a_model_by_nats_hardly_moves_it(nano, control, held_out, tmp_path):
    path = tm.Straight(lengths=(1,), unit="pair-distance")
    sweep = tm.Sweep(site="resid_pre:3", directions=("real-mixture",), path=path, sequences=4)
    kl = [float(tm.run_sweep(sweep, one, held_out, tmp_path / one.model.name)["kl"].mean()) for one in (nano, control)]
    assert kl[0] > 1 and 0 < kl[1] < 0.1  # 3.7 and 0.022


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
    return random_weights(tm.load_model(str(save_model(tmp_path_factory.mktemp("model")))))


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
            patch.setattr("tiltmeter.studies.control.load_sae", lambda _, one=one: one)
            found = control_saes([processing], tiny_control, tiny_tokens, tmp_path, 1024)
        assert tm.load_sae(found[processing]).about.processing == processing


def test_why_an_sae_has_no_control(tmp_path):
    sentence = why_no_control_sae(tm.load_sae(END_TO_END))
    assert sentence.startswith(
        f"There is no control SAE for {END_TO_END} on random weights: it was trained for the model's"
    )
    assert sentence.endswith(".") and "(e2e)" in sentence
    assert "e2e+ds" in why_no_control_sae(tm.load_sae("nano:e2e+ds-3-l0-13"))
    assert why_no_control_sae(tm.load_sae(LOCAL)) is None
    mine = tm.load_sae(save_sae(tmp_path / "mine.safetensors"))
    assert why_no_control_sae(mine).endswith("its files do not say its L0.")
    assert why_no_control_sae(mine, l0=3.0).endswith("its files do not say to which site it belongs.")
    assert why_no_control_sae(mine, 3.0, Site(1, "resid_pre")) is None
