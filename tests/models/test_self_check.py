"""The self-check passes on every family, and fails where a part of a model is not what the whole model has."""

import copy
import dataclasses
from itertools import product

import pytest
import torch
import transformers

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.exact_model import RoundedModel
from tiltmeter.models.head import Head
from tiltmeter.models.hooks import Place, replaced
from tiltmeter.models.positions import Span
from tiltmeter.models.self_check import check_additive, check_head, check_split
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiny_models import CONTEXT, FAMILIES, HEADS, LAYERS, VOCABULARY, WIDTH, random_tokens, tiny

SPAN = Span(3, 6)


def check(model, span=SPAN):
    check_split(model, model.start(random_tokens(2, 8), model.site("resid_pre:1"), (), span))


def opt():
    """A family whose head calls the decoder inside its trunk."""
    config = transformers.OPTConfig(
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        ffn_dim=2 * WIDTH,
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).double()


@pytest.mark.parametrize("span", [SPAN, Span(0, 8), Span(7, 8)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_span_passes(family, span):
    check(SplitModel(tiny(family)), span)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes(family):
    check(SplitModel(tiny(family)))
    check(SplitModel(tiny(family, dtype=torch.float32)))


def test_a_head_that_calls_the_decoder_inside_the_trunk_passes():
    check(SplitModel(opt()))


def test_a_head_that_does_not_call_the_trunk_is_found():
    model = SplitModel(opt())
    model.head = Head(model.hf, dataclasses.replace(model.parts, trunk=model.hf.base_model))
    with pytest.raises(TiltmeterError, match=r"cannot be split at blocks\.1\.hook_resid_pre: its head differs"):
        check(model)


@pytest.mark.parametrize("error", [1e-5, 0.1])
def test_a_resumed_pass_that_is_off_is_found(monkeypatch, error):
    model = SplitModel(tiny("gpt2"))
    right = model.resume

    def off(clean, x):
        late = right(clean, x)
        return dataclasses.replace(late, final=late.final * (1 + error))

    monkeypatch.setattr(model, "resume", off)
    with pytest.raises(TiltmeterError, match=r"an unperturbed resumed pass differs from the whole model by 1\.\de"):
        check(model)


def test_a_resumed_pass_that_forgets_the_perturbation_is_found(monkeypatch):
    model = SplitModel(tiny("gpt2"))
    monkeypatch.setattr(model, "resume", lambda clean, x: clean.late)
    with pytest.raises(TiltmeterError, match="a perturbed resumed pass differs"):
        check(model)


@pytest.mark.parametrize("part", ["transformer.ln_f.bias", "transformer.h.2.mlp.c_fc.weight"])
def test_outputs_that_are_not_finite_are_told_as_such(part):
    hf = copy.deepcopy(tiny("gpt2"))
    hf.get_parameter(part).flatten()[0] = torch.nan
    with pytest.raises(TiltmeterError, match="outputs of tiny are not finite on these tokens; check its weights"):
        check(SplitModel(hf, "tiny"))


PLACES = {"boundary": (0, 5), "mid-sequence": (4, 5), "one channel of all": (slice(None), 5)}


def planted(family, size, place, dtype):
    """A model in which the embeddings of some tokens have one massive number, and sequences in which they stand."""
    hf = copy.deepcopy(tiny(family, dtype=dtype))
    tokens = random_tokens(2, 8)
    tokens[tokens == 60] = 1
    where, channel = PLACES[place]
    if isinstance(where, int):
        tokens[:, where] = 60
    with torch.no_grad():
        hf.get_input_embeddings().weight[60 if isinstance(where, int) else where, channel] = size
    return hf, tokens


def adds_twice(hf):
    """Make the middle block's MLP report half of what it adds: `hook_mlp_out` is then not what TransformerLens has."""
    block = next(module for module in hf.modules() if isinstance(module, torch.nn.ModuleList))[1]
    mlp = getattr(block, "post_feedforward_layernorm", block.mlp)
    inner = mlp.forward
    mlp.forward = lambda *args, **kwargs: 0.5 * inner(*args, **kwargs)
    outer = block.forward

    def forward(*args, **kwargs):
        seen = []
        handle = mlp.register_forward_hook(lambda _, __, output: seen.append(output))
        output = outer(*args, **kwargs)
        handle.remove()
        return (output[0] + seen[0], *output[1:]) if isinstance(output, tuple) else output + seen[0]

    block.forward = forward


SIZES, DTYPES = (300.0, 3_000.0, 100_000.0), (torch.float32, torch.float64)
MASSIVE = [
    (family, SIZES[(row + column) % 3], place, DTYPES[(row + column) % 2])
    for row, family in enumerate(FAMILIES)
    for column, place in enumerate(PLACES)
]
"""Every family with every place; sizes and precisions in turn, so that each place meets each pair of them."""


def test_every_place_meets_every_size_in_both_precisions():
    assert {case[1:] for case in MASSIVE} == set(product(SIZES, PLACES, DTYPES))


@pytest.mark.parametrize(("family", "size", "place", "dtype"), MASSIVE, ids=str)
def test_massive_activations_neither_hide_a_fault_nor_are_one(family, size, place, dtype, monkeypatch):
    hf, tokens = planted(family, size, place, dtype)
    model = SplitModel(hf)
    site = model.site("mlp_out:1")
    clean = model.start(tokens, model.site("resid_pre:1"))
    check_split(model, clean)
    check_additive(model, tokens, site)
    right = model.resume
    monkeypatch.setattr(model, "resume", lambda clean, x: forgets_one_token(right(clean, x), clean))
    with pytest.raises(TiltmeterError, match="a perturbed resumed pass differs"):
        check_split(model, clean)
    adds_twice(hf)
    with pytest.raises(TiltmeterError, match="are not what is added to the stream"):
        check_additive(model, tokens, site)  # its parts were found before


def forgets_one_token(late, clean):
    """The change is right everywhere but at the last token, which keeps its clean values."""
    final = late.final.clone()
    final[..., -1, :] = clean.late.final[..., -1, :]
    return dataclasses.replace(late, final=final)


@pytest.mark.parametrize("family", FAMILIES)
def test_rounded_operands_pass_and_a_wrong_pass_does_not(family, monkeypatch):
    model = RoundedModel(tiny(family, dtype=torch.float32))
    check(model)
    right = model.changes

    def off(clean, change):
        late = right(clean, change)
        return dataclasses.replace(late, final=late.final * 1.5)

    monkeypatch.setattr(model, "changes", off)
    with pytest.raises(TiltmeterError, match="a perturbed resumed pass differs"):
        check(model)


def test_a_head_that_reads_token_ids_is_refused():
    hf = copy.deepcopy(tiny("llama"))
    hf.register_forward_hook(only_at_seven, with_kwargs=True)
    model, ids = SplitModel(hf), random_tokens(8, 6)
    ids[:] = torch.where(ids == 7, 8, ids)
    check_head(model, ids)
    ids[6, 3] = 7
    with pytest.raises(TiltmeterError, match="depend on the token ids"):
        check_head(model, ids)


def only_at_seven(module, args, kwargs, output):
    there = (kwargs["input_ids"] == 7)[..., None]
    output.logits = output.logits + there * torch.linspace(-9, 9, output.logits.shape[-1])
    return output


def test_a_stream_between_attention_and_mlp_is_refused_where_they_are_parallel():
    for family, there in (("neox-parallel", False), ("neox-sequential", True), ("gpt2", True), ("gemma2", True)):
        model = SplitModel(tiny(family), name="tiny")
        assert model.has(Site(1, "resid_mid")) == there
        if there:
            check_additive(model, random_tokens(), Site(1, "resid_mid"))
            check_split(model, model.start(random_tokens(2, 8), Site(1, "resid_mid"), (), SPAN))
        else:
            with pytest.raises(TiltmeterError, match=r"so blocks\.1\.hook_resid_mid cannot be measured; use"):
                model.start(random_tokens(), Site(1, "resid_mid"))


def test_a_middle_that_is_not_the_stream_with_attention_added_is_noticed(monkeypatch):
    """Its reader was found on a few tokens; it stands for a model that reads something else on others."""
    hf = copy.deepcopy(tiny("llama"))
    model, tokens, site = SplitModel(hf, name="tiny"), random_tokens(), Site(1, "resid_mid")
    check_additive(model, tokens, site)
    model.parts.found.clear()
    wrong = Place(hf.model.layers[1].input_layernorm, "input")
    model.parts.known[1] = dataclasses.replace(
        model.parts.inside(1), places={**model.parts.inside(1).places, "resid_mid": wrong}
    )
    with pytest.raises(TiltmeterError, match="are not what is added to the stream"):
        check_additive(model, tokens, site)
    model.parts.known.clear()
    model.parts.found.clear()
    with monkeypatch.context() as patch:  # only what the norm reads is replaced, and not the stream
        patch.setattr(model, "placed", lambda site, x, entry: replaced(model.tap(site), x))
        with pytest.raises(TiltmeterError, match="are not what is added to the stream"):
            check_additive(model, tokens, site)
    model.parts.known.clear()
    model.parts.found.clear()
    hf.model.layers[1].post_attention_layernorm.register_forward_pre_hook(lambda _, args: (args[0] * 1.1,))
    with pytest.raises(TiltmeterError, match="attention and MLP"):
        model.start(tokens, site)
