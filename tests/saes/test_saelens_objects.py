"""Objects of SAELens: read from their weights where that is known, else used as they are, and never changed."""

import json
from copy import deepcopy
from functools import cache

import pytest
import torch

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.own_functions import OwnSAE
from tiltmeter.saes.sae import LinearSAE
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiny_models import HEADS, WIDTH, tiny

sae_lens = pytest.importorskip("sae_lens")

LATENTS = 40
SETTINGS = {
    "topk": {"k": 5},
    "batchtopk": {"k": 5.0},
    "abstopk": {"k": 5},
    "matching_pursuit": {"residual_threshold": 0.1},
}
TOKENS = token_set(sequences=8)


@cache
def model():
    return SplitModel(tiny("gpt2")).measured_in("centred")


def build(architecture, training=False, hook_name="blocks.1.hook_resid_pre", **settings):
    """A SAELens object with random weights, none of them left at what training begins with."""
    torch.manual_seed(0)
    find = sae_lens.registry.get_sae_training_class if training else sae_lens.registry.get_sae_class
    cls, config = find(architecture)
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=hook_name)
    sae = cls(config(d_in=WIDTH, d_sae=LATENTS, metadata=metadata, **SETTINGS.get(architecture, {}) | settings))
    for name, weight in sae.named_parameters():
        if name == "log_threshold":
            weight.data.fill_(-1)
        else:
            weight.data = torch.rand_like(weight) if name == "threshold" else torch.randn_like(weight) / 4
    return sae


def place(given, site="resid_pre:1"):
    sweep = Sweep(
        site=site, directions=("sae-error",), saes={"mine": given}, path=tm.Straight(lengths=(1,)), sequences=4
    )
    return make_plan(sweep, model(), TOKENS).saes["mine"].sae


def state(sae):
    return {**sae.state_dict(), "cfg": json.dumps(sae.cfg.to_dict(), default=str), "attributes": sorted(vars(sae))}


def assert_same(ours, theirs, site="resid_pre:1", heads=()):
    """Encoding and decoding, theirs in the order that its state needs."""
    x = model().activation(TOKENS.ids, model().site(site)).float()
    latents = theirs.encode(x.unflatten(-1, heads) if heads else x)
    decoded = theirs.decode(latents).reshape(x.shape)
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(ours.encode(x), latents, atol=1e-5, rtol=1e-4, check_dtype=False)
    torch.testing.assert_close(ours.decode(ours.encode(x), like=x), decoded, atol=1e-5, rtol=1e-4, check_dtype=False)


KINDS = [
    ("standard", {}),
    ("standard", {"apply_b_dec_to_input": False}),
    ("standard", {"normalize_activations": "layer_norm"}),
    ("topk", {"rescale_acts_by_decoder_norm": True}),
    ("topk", {"normalize_activations": "constant_norm_rescale"}),
    ("jumprelu", {}),
    ("gated", {}),
    ("jumprelu", {"training": True}),
    ("topk", {"training": True}),
]


@pytest.mark.parametrize(("architecture", "settings"), KINDS)
@pytest.mark.filterwarnings("ignore")
def test_an_object_is_read_from_its_weights_and_not_changed(architecture, settings, tmp_path):
    given = build(architecture, **settings)
    before = deepcopy(state(given))
    ours = place(given)
    after = state(given)
    assert before.keys() == after.keys() and all(
        torch.equal(one, after[key]) if isinstance(one, torch.Tensor) else one == after[key]
        for key, one in before.items()
    )
    assert isinstance(ours, LinearSAE) and ours.about.architecture == architecture
    assert ours.about.hook_name == "blocks.1.hook_resid_pre"
    assert_same(ours, given)
    if not settings.get("training"):  # and it is what the folder would be
        given.save_model(tmp_path)
        assert load_sae(tmp_path).about.sha256 == ours.about.sha256


def test_heads_are_flattened():
    given = build("standard", hook_name="blocks.1.attn.hook_z", reshape_activations="hook_z")
    assert_same(place(given, "z:1"), given, "z:1", heads=(HEADS, WIDTH // HEADS))


def test_an_architecture_that_is_not_read_is_used_through_its_own_functions():
    given = build("matching_pursuit")
    ours = place(given)
    assert isinstance(ours, OwnSAE)
    assert_same(ours, given)


def test_its_state_is_noticed_and_nothing_of_it_is_left_in_the_original():
    given = build("matching_pursuit", normalize_activations="layer_norm")
    before = state(given)["attributes"]
    with pytest.raises(TiltmeterError, match="mine keeps something from one call to the next"):
        place(tm.wrap_sae(given, version="1"))
    assert state(given)["attributes"] == before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda: build("abstopk"), "mine has negative latents"),
        (
            lambda: build("transcoder", d_out=WIDTH, apply_b_dec_to_input=False),
            "mine is a transcoder: its output is not a reconstruction",
        ),
        (lambda: build("batchtopk", training=True), "mine is a batchtopk SAE in training.*save_inference_model"),
        (lambda: build("standard", normalize_activations="expected_average_only_in"), "do not state the factor"),
        (lambda: build("standard", hook_name="blocks.2.hook_resid_pre"), "belongs to blocks.2.hook_resid_pre, not to"),
        (lambda: tm.wrap_sae(build("standard"), k=3), "is decided by the configuration of SAELens; leave out k="),
    ],
)
def test_what_is_refused(given, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        place(given())


def test_an_object_that_is_not_what_its_configuration_says_is_refused():
    given = build("standard")
    given.cfg.apply_b_dec_to_input = False
    place(given)  # its encode reads the configuration
    given.encode = build("topk").encode
    with pytest.raises(TiltmeterError, match="mine encodes or decodes in another way than its weights say"):
        place(given)
