"""A model is identified by what runs: no change of its numbers passes for the same model, and no name makes another."""

import json
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

import tiltmeter as tm
from sweep_cases import save_model, token_set
from tiltmeter.models.fingerprint import fingerprint, model_sha256
from tiltmeter.models.split_model import SplitModel
from tiny_models import WIDTH, random_tokens, tiny

SWEEP = tm.Sweep(site="resid_pre:1", directions=("isotropic",), path=tm.Straight(lengths=(0.0, 1.0)), sequences=4)


def in_memory(hf, name="mine", **facts):
    return tm.LoadedModel(SplitModel(hf, name), None, {"name": name, **facts})


def of(family="llama", change=lambda hf: None, **options):
    hf = deepcopy(tiny(family, **options))
    change(hf)
    return fingerprint(SplitModel(hf))


def times(factor):
    """All weights multiplied past autograd's counters, as `.data` allows."""

    def change(hf):
        for parameter in hf.parameters():
            parameter.data.mul_(factor)

    return change


def steering(scale):
    vector = torch.ones(WIDTH, dtype=torch.float64) * scale
    return lambda _, __, out: out + vector


def on_mlp(hook):
    return lambda hf: hf.model.layers[1].mlp.register_forward_hook(hook)


def configured(**settings):
    return lambda hf: [setattr(hf.config, name, value) for name, value in settings.items()]


def attribute(place, name, value):
    return lambda hf: setattr(hf.get_submodule(place), name, value)


CHANGES = {
    "weights": (times(0.3), "sha256"),
    "one buffer that no file holds": (lambda hf: hf.model.rotary_emb.inv_freq.mul_(2), "sha256"),
    "activation function": (attribute("model.layers.1.mlp", "act_fn", nn.ReLU()), "modules"),
    "a scale": (attribute("model.layers.1.self_attn", "scaling", 0.5), "modules"),
    "epsilon": (attribute("model.norm", "variance_epsilon", 0.1), "modules"),
    "a hook": (on_mlp(steering(1.0)), "modules"),
    "a forward": (attribute("model.layers.1.mlp", "forward", lambda x: 0 * x), "modules"),
    "rotary base": (configured(rope_parameters={"rope_theta": 77.0, "rope_type": "default"}), "config"),
    "attention": (lambda hf: hf.set_attn_implementation("sdpa"), "attention"),
    "dtype": (lambda hf: hf.float(), "dtype"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_numbers_changes_the_fingerprint(what):
    change, where = CHANGES[what]
    plain, other = of(), of(change=change)
    assert plain != other and plain[where] != other[where]


STRENGTH = 1.0


class Steer:
    """Adds a vector, as a method that is registered or as an object that is called."""

    def __init__(self, scale):
        self.vector = torch.ones(WIDTH, dtype=torch.float64) * scale

    def hook(self, _, __, out):
        return out + self.vector

    __call__ = hook


def nested(scale):
    def add(out):
        return out + scale

    return lambda _, __, out: add(out)


def by_global(_, __, out):
    return out + STRENGTH


HOOKS = {
    "a method": lambda scale: Steer(scale).hook,
    "an object": Steer,
    "a closure in a closure": nested,
}


@pytest.mark.parametrize("kind", HOOKS)
def test_what_a_hook_is_bound_to_counts(kind):
    one, again, other = (of(change=on_mlp(HOOKS[kind](scale)))["modules"] for scale in (1.0, 1.0, 2.0))
    assert one == again != other


def test_globals_that_a_hook_reads_count(monkeypatch):
    before = of(change=on_mlp(by_global))["modules"]
    assert of(change=on_mlp(by_global))["modules"] == before
    monkeypatch.setitem(globals(), "STRENGTH", 2.0)
    assert of(change=on_mlp(by_global))["modules"] != before


def test_private_numbers_of_modules_count():
    one, other = (of(change=attribute("model.layers.1.mlp", "_scale", scale))["modules"] for scale in (1.0, 2.0))
    assert one != other


def test_two_hooks_of_one_function_are_two():
    one, again, other = (of(change=on_mlp(steering(scale)))["modules"] for scale in (1.0, 1.0, 2.0))
    assert one == again != other


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "neox-parallel"])
def test_the_same_model_twice_is_the_same(family, tmp_path):
    folder = save_model(tmp_path / "model", family)
    one, again = (tm.load_model(str(folder), precision="float32") for _ in range(2))
    assert fingerprint(one.model) == fingerprint(again.model)
    assert json.loads(json.dumps(fingerprint(one.model), allow_nan=False)) == fingerprint(one.model)
    assert one.facts["sha256"] == model_sha256(one.model.hf) == fingerprint(one.model)["sha256"]


def test_names_paths_and_versions_are_left_out(tmp_path):
    plain = of()
    named = of(change=configured(_name_or_path="elsewhere", transformers_version="0", architectures=["X"]))
    assert plain == named
    assert plain["config"]["rope_parameters"]["rope_theta"] == 10000.0


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_running_a_model_does_not_change_it(family):
    model = SplitModel(tiny(family))
    before = fingerprint(model)
    clean = model.start(random_tokens(), model.site("resid_pre:1"))
    model.resume(clean, clean.activation)
    model.hf(input_ids=random_tokens(), output_hidden_states=True, output_attentions=True)
    assert fingerprint(model) == before


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_embeddings_that_follow_the_length_do_not_change_it(kind):
    factors = {"short_factor": [1.0] * 6, "long_factor": [4.0] * 6, "original_max_position_embeddings": 8}
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0} | (factors if kind == "longrope" else {})
    config = deepcopy(tiny("llama").config)
    config.rope_parameters, config.max_position_embeddings = rope, 8 if kind == "dynamic" else 16
    hf = type(tiny("llama"))(config).double().eval()
    model = SplitModel(hf)
    before, angles = fingerprint(model), hf.model.rotary_emb.inv_freq.clone()
    hf(input_ids=random_tokens(length=12))
    assert not torch.equal(hf.model.rotary_emb.inv_freq, angles), "this test needs a model that changes"
    assert fingerprint(model) == before


def test_weights_that_are_nowhere_are_refused():
    hf = deepcopy(tiny("gpt2"))
    hf.transformer.h[1].to("meta")
    with pytest.raises(tm.TiltmeterError, match=r"transformer\.h\.1.* hold no numbers"):
        model_sha256(hf)


# Runs


def refused(loaded, out):
    with pytest.raises(tm.TiltmeterError) as error:
        tm.run_sweep(SWEEP, loaded, token_set(), out)
    assert "is a run of another configuration" in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("facts", [{}, {"sha256": "stale"}, {"sha256": "stale", "config": "mine", "class": "C"}])
def test_shards_of_other_weights_never_come_back(tmp_path, facts):
    hf = deepcopy(tiny("llama"))
    first = tm.run_sweep(SWEEP, in_memory(hf, **facts), token_set(), tmp_path / "run")
    again = tm.run_sweep(SWEEP, in_memory(hf, "other name", **facts), token_set(), tmp_path / "run")
    assert again.kl.equals(first.kl)
    times(0.3)(hf)
    assert "model.sha256 is" in refused(in_memory(hf, **facts), tmp_path / "run")
    other = tm.run_sweep(SWEEP, in_memory(hf, **facts), token_set(), tmp_path / "other")
    assert abs(other.kl - first.kl).max() > 1e-3


def edit(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


EDITS = {
    "gpt2": {
        'model.config.activation_function is "gelu_new"': {"activation_function": "relu"},
        "model.attention is ": {"_attn_implementation": "eager"},
    },
    "llama": {
        "model.config.rope_parameters.rope_theta is 10000.0 there, 5.0 here": {
            "rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}
        },
        "model.config.rms_norm_eps is 1e-06 there, 0.1 here": {"rms_norm_eps": 0.1},
    },
    "mistral": {"model.config.sliding_window is 4 there, 2 here": {"sliding_window": 2}},
    "gemma2": {"model.config.final_logit_softcapping is 4.0 there": {"final_logit_softcapping": 1.0}},
}
"""Changes of a family's configuration by what is said of them."""


@pytest.mark.parametrize("family", EDITS)
def test_an_edited_configuration_is_another_run(tmp_path, family):
    folder = save_model(tmp_path / "model", family)
    load = partial(tm.load_model, str(folder), precision="float32")
    tm.run_sweep(SWEEP, load(), token_set(), tmp_path / "run")
    tm.run_sweep(SWEEP, load(), token_set(), tmp_path / "run")
    original = (folder / "config.json").read_bytes()
    for sentence, settings in EDITS[family].items():
        edit(folder, **settings)
        assert sentence in refused(load(), tmp_path / "run")
        (folder / "config.json").write_bytes(original)


def test_the_arithmetic_of_a_model_is_part_of_it(tmp_path):
    folder = save_model(tmp_path / "model")
    prints = [fingerprint(tm.load_model(str(folder), precision=p).model) for p in ("float32", "float32-difference")]
    assert prints[0]["runs_as"] != prints[1]["runs_as"]
