"""The check on load: SAEs that explain a small model's activations exactly, and the same ones broken in each way."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from functools import cache, partial

import pytest
import torch

from small_saes import identity, random_sae
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes import load_check
from tiltmeter.saes.affine import AffineSAE, unfold_value_biases, value_constant
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.load_check import _is_short, check_compatible, check_on_load
from tiltmeter.saes.sae import About, LinearSAE, TopK
from tiny_models import HEAD, HEADS, WIDTH, full_pass, random_tokens, tiny

BOUNDARY = 0
SITE, Z = Site(1, "resid_pre"), Site(1, "z")
NO_BIAS = torch.zeros(WIDTH, dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def gpt2() -> SplitModel:
    """A model in which streams, layers, sequences after a boundary token and z's constant part are far apart."""
    hf = copy.deepcopy(tiny("gpt2"))
    trunk = hf.transformer
    hf.lm_head.weight = torch.nn.Parameter(trunk.wte.weight.clone())  # no longer that of the embeddings
    trunk.wpe.weight.data += 100  # the mean over d_model, which the centred stream lacks
    trunk.wte.weight.data += 5 * draw(WIDTH, seed=30) * (torch.arange(WIDTH) > 0)
    trunk.wte.weight.data[BOUNDARY, 0] = 200
    for layer, block in enumerate(trunk.h):
        block.mlp.c_proj.bias.data = 3 * draw(WIDTH, seed=layer)
        block.attn.c_attn.bias.data[2 * WIDTH :] = 2 * draw(WIDTH, seed=10 + layer)
    first = trunk.h[0]
    first.ln_1.weight.data, first.ln_1.bias.data = 1 + NO_BIAS, NO_BIAS.clone()
    weight = first.attn.c_attn.weight.data  # every later position looks at the boundary token, and sees 4 * its value
    weight[0] = torch.cat([NO_BIAS, 1 + NO_BIAS, 4 * draw(WIDTH, seed=20)])
    first.attn.c_attn.bias.data[:WIDTH] = 2
    return SplitModel(hf, "tiny")


def ids(begin=False, sequences=24, length=12):
    """Tokens that are the boundary one nowhere, or at the beginning of every sequence alone."""
    found = random_tokens(sequences, length, seed=3).clamp(min=1)
    found[:, 0] = BOUNDARY if begin else found[:, 0]
    return found


def token_set(found, boundary=BOUNDARY):
    return TokenSet(found, "test", boundary, {})


PLAIN = token_set(ids())
BEGUN = token_set(ids(begin=True))


def activations(model, site, tokens=PLAIN):
    return model.activation(tokens.ids, site)[:, 1:].flatten(0, 1)


def box(x, **about):
    """The SAE that gives back activations in the smallest box around `x`, and clips others to it.

    clip(x) = lo + relu(x - lo) - relu(x - hi), in SAELens's convention: b_dec is subtracted before encoding.
    """
    low, high = x.min(0).values, x.max(0).values
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    one = torch.eye(x.shape[1], dtype=x.dtype)
    facts = {"l0": float(x.shape[1]), "explained_variance": 1.0, **about}
    return LinearSAE(
        About("A", "standard", "0" * 64, **facts),
        W_enc=torch.cat([one, one], 1),
        b_enc=torch.cat([torch.zeros_like(low), low - high]),
        W_dec=torch.cat([one, -one]),
        b_dec=low,
        input_bias=low,
    )


def about(sae, **changes):
    return dataclasses.replace(sae.about, **changes)


def at(model, sae, site=SITE):
    return SAEAtSite(sae, site, partial(model.centre, site=site))


def warnings(model, sae, site=SITE, tokens=PLAIN):
    return check_on_load(model, at(model, sae, site), tokens).warnings


def only_cause(found):
    """The one sentence that names a cause, after at least one that says what is off."""
    assert sum("ikely cause" in sentence for sentence in found) == 1
    assert "ikely cause" in found[-1] and len(found) > 1
    return found[-1]


@pytest.mark.parametrize("kind", ["resid_pre", "resid_post", "mlp_out", "attn_out", "z"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_an_sae_that_gives_everything_back_is_well_everywhere(family, kind, monkeypatch):
    monkeypatch.setattr(load_check, "likely_cause", None)  # nothing is tried
    model, site = SplitModel(tiny(family)), Site(1, kind)
    width = WIDTH if kind != "z" or family == "gpt2" else HEADS * HEAD
    found = check_on_load(model, at(model, identity(width), site), PLAIN)
    assert found.warnings == ()
    assert found.metrics.explained_variance == pytest.approx(1, abs=1e-9)
    assert found.metrics.l0 == pytest.approx(width)
    assert found.metrics.kl == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("stream", ["centred", "raw"])
@pytest.mark.parametrize("tokens", [PLAIN, BEGUN], ids=["plain", "begun"])
@pytest.mark.parametrize("site", [SITE, Site(2, "resid_post"), Z, Site(0, "mlp_out")], ids=lambda site: site.name)
def test_an_intact_sae_is_well(site, tokens, stream, monkeypatch):
    monkeypatch.setattr(load_check, "likely_cause", None)
    model = gpt2().measured_in(stream)
    processing = "raw" if site.kind == "z" else stream
    sae = box(model.activation(tokens.ids, site).flatten(0, 1), processing=processing, hook_name=site.name)
    check_compatible(sae, model, site)
    assert warnings(model, sae, site, tokens) == ()


@pytest.mark.parametrize(("made", "used"), [("raw", "centred"), ("centred", "raw")])
def test_the_other_stream(made, used):
    sae = box(activations(gpt2().measured_in(made), SITE))
    found = warnings(gpt2().measured_in(used), sae)
    assert f"it expects the {made}" in only_cause(found)
    assert f"--stream {made}" in found[-1]
    said = dataclasses.replace(sae, about=about(sae, processing=made))
    assert warnings(gpt2().measured_in(used), said) == (
        *found,
        found_last := warnings(gpt2().measured_in(used), said)[-1],
    )
    assert f"expects the {made} residual stream" in found_last


@pytest.mark.parametrize("subtracted", [True, False])
def test_the_other_convention_for_b_dec(subtracted):
    """Weights that were moved without their configuration."""
    model = gpt2()
    sae = box(activations(model, SITE))
    if not subtracted:  # the same SAE in the other convention
        sae = dataclasses.replace(sae, b_enc=sae.b_enc - sae.b_dec @ sae.W_enc, input_bias=torch.zeros_like(sae.b_dec))
    assert not warnings(model, sae)
    wrong = torch.zeros_like(sae.b_dec) if subtracted else sae.b_dec
    cause = only_cause(warnings(model, dataclasses.replace(sae, input_bias=wrong)))
    assert f"b_dec is {'' if subtracted else 'not '}subtracted from the input, and here" in cause
    assert f"?apply_b_dec_to_input={str(subtracted).lower()}" in cause


@pytest.mark.parametrize("made", [Site(0, "resid_pre"), Site(2, "resid_pre"), Site(2, "resid_post")])
def test_another_site(made):
    sae = box(activations(gpt2(), made), hook_name=made.name)
    assert f"it belongs to {made.name} (" in only_cause(warnings(gpt2(), sae))


def test_the_stream_in_the_place_of_z():
    sae = box(activations(gpt2(), SITE))
    assert f"it belongs to {SITE.name} (" in only_cause(warnings(gpt2(), sae, Z))


def test_another_layer_of_z():
    sae = box(activations(gpt2(), Site(2, "z")))
    assert "it belongs to blocks.2.attn.hook_z (" in only_cause(warnings(gpt2(), sae, Z))


@pytest.mark.parametrize(
    ("made", "used", "cause"),
    [(BEGUN, PLAIN, "sequences that begin with the boundary token"), (PLAIN, BEGUN, "do not begin with the boundary")],
    ids=["missing", "there"],
)
def test_the_boundary_token(made, used, cause):
    sae = box(activations(gpt2(), SITE, made))
    assert cause in only_cause(warnings(gpt2(), sae, tokens=used))


def test_first_positions_that_no_one_trained_on():
    sae = box(activations(gpt2(), SITE, BEGUN))  # the boundary token's own activation is 200 long
    (found,) = warnings(gpt2(), sae, tokens=BEGUN)
    assert "--bos-perturbation out" in found


def top_k_sae(model):
    """Exact with the WIDTH largest latents of a token; the others are small, always there, and large when decoded."""
    x, exact = activations(model, SITE), identity(WIDTH)
    junk, k = 6 * WIDTH, WIDTH
    return LinearSAE(
        About("A", "topk", "0" * 64, l0=float(k), explained_variance=1.0),
        W_enc=torch.cat([exact.W_enc, torch.zeros(WIDTH, junk).double()], 1),
        b_enc=torch.cat([exact.b_enc, torch.full((junk,), 1e-3).double()]),
        W_dec=torch.cat([exact.W_dec, 1e3 * x.std() * draw(junk, WIDTH)]),
        b_dec=NO_BIAS,
        input_bias=NO_BIAS,
        activation=TopK(k),
    )


def test_top_k_read_as_relu():
    sae = top_k_sae(gpt2())
    assert warnings(gpt2(), sae) == ()
    relu = dataclasses.replace(sae, about=about(sae, architecture="standard"), activation=torch.relu)
    found = warnings(gpt2(), relu)
    assert "top-k SAE read as a ReLU one (load it with k = 32)" in only_cause(found)
    silent = dataclasses.replace(relu, about=about(relu, l0=None, explained_variance=None))
    assert "it fits better with the 32 largest of each token alone" in only_cause(warnings(gpt2(), silent))


def scaled(x):
    s = math.sqrt(x.shape[1]) / float(x.norm(dim=-1).mean())
    return s, box(s * x)


def folded(s, sae):
    """SAELens's folding of the factor into the weights."""
    return dataclasses.replace(
        sae, W_enc=sae.W_enc * s, W_dec=sae.W_dec / s, b_dec=sae.b_dec / s, input_bias=sae.input_bias / s
    )


def test_scaled_activations():
    x = activations(gpt2(), SITE)
    s, sae = scaled(x)
    whole = folded(s, sae)
    assert warnings(gpt2(), whole) == ()
    assert f"fold the factor {s:.4g} into its weights" in only_cause(warnings(gpt2(), sae))
    left = dataclasses.replace(whole, b_dec=sae.b_dec, input_bias=sae.b_dec)
    assert f"divide b_dec by {s:.4g}" in only_cause(warnings(gpt2(), left))
    left = dataclasses.replace(box(x), b_enc=s * box(x).b_enc)
    assert f"divide b_enc by {s:.4g}" in only_cause(warnings(gpt2(), left))


def test_folded_value_biases():
    constant = value_constant(gpt2(), Z)
    sae = box(activations(gpt2(), Z) - constant)
    assert "as TransformerLens folds them" in only_cause(warnings(gpt2(), sae, Z))
    said = dataclasses.replace(sae, about=about(sae, processing="folded"))
    assert "tiltmeter.saes.affine.unfold_value_biases" in warnings(gpt2(), said, Z)[-1]
    mended = unfold_value_biases(said, gpt2(), Z)
    assert warnings(gpt2(), mended, Z) == ()
    assert unfold_value_biases(sae, gpt2(), Z) is sae and unfold_value_biases(said, gpt2(), SITE) is said


def test_nothing_that_helps():
    found = warnings(gpt2(), random_sae(WIDTH, 200, scale=30.0, bias=0.0))
    assert "No likely cause was found" in only_cause(found)
    sae = random_sae(WIDTH, 200, scale=30.0, bias=0.0)
    told = dataclasses.replace(sae, about=about(sae, prepend_bos=True))
    assert "trained with a boundary token" in warnings(gpt2(), told)[-1]
    assert "trained with" not in warnings(gpt2(), told, tokens=token_set(PLAIN.ids, None))[-1]


def test_end_to_end_saes_need_not_explain_anything():
    low = dataclasses.replace(identity(WIDTH), W_dec=identity(WIDTH).W_dec * 2.1)
    assert "less than the mean activation does" in warnings(gpt2(), low)[0]
    assert not any(
        "less than" in said for said in warnings(gpt2(), dataclasses.replace(low, about=about(low, kind="e2e")))
    )


@dataclasses.dataclass(frozen=True)
class ByNorm(LinearSAE):
    """An SAE of activations of length 1, which needs to be told what length they had."""

    def encode(self, x):
        return super().encode(x / x.norm(dim=-1, keepdim=True))

    def decode(self, latents, like=None):
        if like is None:
            raise TiltmeterError("like is missing")
        return super().decode(latents) * like.norm(dim=-1, keepdim=True)


def test_an_sae_that_normalises_each_token():
    sae = ByNorm(**vars(identity(WIDTH)))
    assert warnings(gpt2(), sae) == ()
    bad = ByNorm(**vars(random_sae(WIDTH, 200, bias=0.0)))
    assert "No likely cause" in only_cause(warnings(gpt2(), bad))
    x, shift = draw(7, WIDTH, seed=2), draw(WIDTH, seed=1)
    moved = AffineSAE(sae.about, sae, shift, 0.25)
    torch.testing.assert_close(moved.decode(moved.encode(x), like=x), x)


def test_figures_far_from_the_published_ones():
    sae = identity(WIDTH)

    def said(**facts):
        return warnings(gpt2(), dataclasses.replace(sae, about=about(sae, **facts)))

    assert said(l0=17.0, explained_variance=1.0) == said(l0=63.0) == ()
    assert said(l0=15.0)[0] == "The L0 of I at blocks.1.hook_resid_pre is 32, but its files state 15."
    assert "but its files state 65" in said(l0=65.0)[0]


def test_an_sae_that_explains_what_its_files_state_is_not_tried(monkeypatch):
    monkeypatch.setattr(load_check, "diagnose", None)
    sae = identity(WIDTH)
    assert warnings(gpt2(), dataclasses.replace(sae, about=about(sae, explained_variance=1.01))) == ()
    for stated in (None, 1.03):
        with pytest.raises(TypeError):
            warnings(gpt2(), dataclasses.replace(sae, about=about(sae, explained_variance=stated)))


@pytest.mark.parametrize(
    ("explained", "published", "off"),
    [
        (0.457, 0.640, True),  # one layer off
        (0.60, 0.64, False),
        (0.54, 0.64, False),  # another text
        (0.94, 0.98, False),
        (0.80, 0.98, True),
        (-30.5, -28.7, False),  # end-to-end, hardly trained
        (math.nan, 0.5, True),
    ],
)
def test_how_far_below_the_published_variance_is_off(explained, published, off):
    assert _is_short(explained, published) == off


def test_latents_that_never_or_always_fire():
    never = dataclasses.replace(identity(WIDTH), b_enc=torch.full((2 * WIDTH,), -1e6).double())
    assert "No latent of I at blocks.1.hook_resid_pre fires." in warnings(gpt2(), never)
    always = dataclasses.replace(identity(WIDTH), b_enc=torch.full((2 * WIDTH,), 1e6).double())
    assert "more than half of its 64 latents fire" in warnings(gpt2(), always)[0]  # what they add cancels out


@cache
def spoken(sign=1):
    """Sequences that the model itself finds likely, so that its loss means something; or unlikely."""
    model, found = tiny("gpt2"), random_tokens(16, 1, seed=5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(11):
        with torch.no_grad():
            p = model(input_ids=found, use_cache=False).logits[:, -1].mul(sign).softmax(-1)
        found = torch.cat([found, p.multinomial(1, generator=generator)], 1)
    return found


def test_the_loss_with_the_mean_everywhere_is_that_of_a_full_pass():
    model, tokens = SplitModel(tiny("gpt2")), spoken()
    x = full_pass("gpt2", model.hf, tokens, [(1, "resid_pre")]).seen[1, "resid_pre"]
    x = x - x.mean(-1, keepdim=True)
    counted = tokens != BOUNDARY
    counted[:, 0] = False
    mean = x[counted].mean(0)
    logits = full_pass("gpt2", model.hf, tokens, edits={(1, "resid_pre"): lambda x: mean.expand_as(x)}).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    found = check_on_load(model, at(model, identity(WIDTH)), token_set(tokens))
    assert found.mean_loss == pytest.approx(float(expected))
    assert found.mean_loss > found.metrics.clean_loss and found.warnings == ()


def test_a_loss_worse_than_with_the_mean_everywhere():
    model = SplitModel(tiny("gpt2"))
    wrong = dataclasses.replace(identity(WIDTH), W_dec=-3 * identity(WIDTH).W_dec)
    said = "worse than"
    assert any(said in sentence for sentence in warnings(model, wrong, tokens=token_set(spoken())))
    found = check_on_load(model, at(model, wrong), token_set(spoken(sign=-1)))
    assert found.mean_loss < found.metrics.clean_loss  # of such sequences the model knows less than nothing
    assert not any(said in sentence for sentence in found.warnings)


def test_the_budget():
    model, sae = gpt2(), identity(WIDTH)
    assert check_on_load(model, at(model, sae), PLAIN, budget=40).metrics.tokens == 36
    assert check_on_load(model, at(model, sae), PLAIN, budget=1).metrics.tokens == 12
    assert check_on_load(model, at(model, sae), PLAIN).metrics.tokens == PLAIN.ids.numel()


def test_json():
    found = check_on_load(gpt2(), at(gpt2(), box(activations(gpt2(), SITE))), PLAIN)
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert again["metrics"]["l0"] == found.metrics.l0 and again["warnings"] == []
    assert again["published_l0"] == WIDTH and again["mean_loss"] == found.mean_loss
    bad = dataclasses.replace(found, metrics=dataclasses.replace(found.metrics, kl=math.inf), published_l0=None)
    assert bad.to_json()["metrics"]["kl"] is None and bad.to_json()["published_l0"] is None


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(TiltmeterError, match=r"width 8, but activations at blocks.1.hook_resid_pre have width 32"):
        warnings(gpt2(), identity(8))


def test_the_value_constant_is_the_formula_of_each_family():
    for model in (gpt2(), SplitModel(tiny("gpt2"))):
        block = model.parts.blocks[1]
        weight, bias = block.attn.c_attn.weight[:, 2 * WIDTH :], block.attn.c_attn.bias[2 * WIDTH :]
        torch.testing.assert_close(value_constant(model, Z), block.ln_1.bias @ weight + bias)
    qwen2 = SplitModel(tiny("qwen2"))
    bias = qwen2.parts.blocks[1].self_attn.v_proj.bias.reshape(2, -1).repeat_interleave(2, 0).flatten()
    torch.testing.assert_close(value_constant(qwen2, Z), bias)
    assert not value_constant(SplitModel(tiny("llama")), Z).any()


def test_a_moved_sae_is_one_of_moved_activations():
    sae, shift, x = random_sae(WIDTH, 50), draw(WIDTH, seed=1), draw(7, WIDTH, seed=2)
    moved = AffineSAE(sae.about, sae, shift, 0.25)
    latents = moved.encode(x)
    torch.testing.assert_close(latents, sae.encode(0.25 * x + shift))
    torch.testing.assert_close(0.25 * moved.decode(latents) + shift, sae.decode(latents))
    one = torch.zeros(50).double()
    step = moved.decode(one.index_fill(0, torch.tensor([3]), 1.0)) - moved.decode(one)
    torch.testing.assert_close(moved.decoder[3], step)
    assert moved.to(torch.device("cpu"), torch.float32).encode(x.float()).dtype == torch.float32
