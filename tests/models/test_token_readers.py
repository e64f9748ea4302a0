"""Models that read more from the token ids than embeddings: where documents begin, say."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaModel

from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.positions import Span
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiny_models import random_tokens, tiny

BEGINS = 5
"""The token that begins a document in `Packed`; the ids that models are tried on do not have it."""


class Packed(LlamaModel):
    """Tokens attend to their own document alone, and positions are counted from its beginning, unless given."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **inputs):
        past = past_key_values.get_seq_length() if past_key_values else 0
        index = torch.arange(past + input_ids.shape[1])
        begins = torch.nn.functional.pad(input_ids == BEGINS, (past, 0))
        document = begins.cumsum(-1)
        seen = (document[:, None, past:, None] == document[:, None, None, :]) & (index <= index[past:, None])
        if position_ids is None:
            position_ids = (index - torch.where(begins, index, 0).cummax(-1).values)[:, past:]
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        given = {"attention_mask": mask, "position_ids": position_ids, "past_key_values": past_key_values}
        return super().forward(input_ids=input_ids, **given, **inputs)


def packed():
    hf = tiny("llama")
    hf.model.__class__ = Packed
    return hf


@pytest.mark.parametrize("cls", [SplitModel, ExactModel])
@pytest.mark.parametrize("span", [Span(0, 12), Span(6, 12)], ids=["all", "last"])
def test_positions_are_those_that_the_model_reads_from_the_tokens(cls, span):
    model, tokens = cls(packed()), random_tokens(2, 12) % 3
    tokens[0, 4] = BEGINS
    site = Site(1, "resid_pre")
    clean = model.start(tokens, site, (), span)
    push = 0.5 * span.cut(clean.activation).flip(-1)

    def add(module, args):
        return (torch.cat([args[0][:, : span.first], args[0][:, span.first :] + push], 1),)

    handle = model.hf.model.layers[1].register_forward_pre_hook(add)
    expected = model.hf.model(input_ids=tokens).last_hidden_state[:, span.first :]
    handle.remove()
    found = clean.late.final + model.changes(clean, push[None]).final[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_only_sequences_that_need_it_are_run_from_their_beginning():
    model, tokens = SplitModel(packed()), random_tokens(2, 12) % 3
    assert model.start(tokens, Site(1, "resid_pre"), (), Span(6, 12)).way == "suffix"
    tokens[1, 2] = BEGINS
    assert model.start(tokens, Site(1, "resid_pre"), (), Span(6, 12)).way == "layers"
