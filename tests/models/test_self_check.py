"""The self-check passes on every family, and fails where a part of a model is not what the whole model has."""

import copy
import dataclasses

import pytest
import torch
import transformers

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import Span
from tiltmeter.models.self_check import check_split
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
    model.parts = dataclasses.replace(model.parts, trunk=model.hf.base_model)
    with pytest.raises(TiltmeterError, match=r"cannot be split at blocks\.1\.hook_resid_pre: its head differs"):
        check(model)


@pytest.mark.parametrize("error", [1e-5, 0.1])
def test_a_resumed_pass_that_is_off_is_found(monkeypatch, error):
    model = SplitModel(tiny("gpt2"))
    right = model.resume

    def off(clean, x):
        late = right(clean, x)
        return dataclasses.replace(late, final=late.final + error * late.final.abs().max())

    monkeypatch.setattr(model, "resume", off)
    with pytest.raises(
        TiltmeterError, match=f"an unperturbed resumed pass differs from the whole model by {error:.1e}"
    ):
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
