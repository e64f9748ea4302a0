"""A HookedTransformer put back into a model of transformers computes what its own hooks show."""

from __future__ import annotations

import pytest
import torch

import tiltmeter as tm
from hooked_cases import CONTEXT, SETTINGS, VOCABULARY, hooked
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.hooked_transformer import to_transformers
from tiny_models import random_tokens
from token_cases import make_tokenizer

SWEEP = tm.Sweep(
    site="blocks.1.hook_resid_pre",
    directions={"mine": torch.linspace(-1, 1, 16)},
    path=tm.Straight(lengths=(0.5, 3.0)),
    sequences=3,
    statistics_sequences=3,
)


@torch.no_grad()
@pytest.mark.parametrize("processed", [True, False], ids=["processed", "plain"])
@pytest.mark.parametrize("family", SETTINGS)
def test_log_probabilities_are_those_of_the_hooked_transformer(family, processed):
    theirs = hooked(family, processed)
    ours = to_transformers(theirs, "mine")
    ids = random_tokens(2, CONTEXT)
    expected = theirs(ids).log_softmax(-1)
    found = ours(input_ids=ids).logits.log_softmax(-1)
    assert expected.std() > 0.2, "nothing would show"
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)  # norms and angles are in float32 in transformers
    assert not any(one.requires_grad for one in ours.parameters())


def test_a_processed_model_has_plain_norms_and_a_bias_at_the_head():
    ours = to_transformers(hooked("gpt2"), "mine")
    assert (ours.transformer.h[0].ln_1.weight == 1).all() and not ours.transformer.h[0].ln_1.bias.any()
    assert ours.lm_head.bias.std() > 0.1
    assert to_transformers(hooked("qwen2"), "mine").model.layers[0].self_attn.o_proj.bias.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "pythia", "llama"])
def test_kl_is_that_of_hooks_on_the_hooked_transformer(family):
    """Textbook KL of TransformerLens's own run with a hook that adds the vector."""
    theirs, ids = hooked(family), random_tokens(3, 12, seed=2)
    direction = torch.linspace(-1, 1, 16, dtype=torch.float64)
    direction = direction - direction.mean() if family != "llama" else direction
    clean, expected = theirs(ids).log_softmax(-1), []
    for length in SWEEP.path.lengths:
        push = length * direction / direction.norm()
        moved = theirs.run_with_hooks(ids, fwd_hooks=[(SWEEP.site, lambda x, hook, push=push: x + push)])
        expected.append((clean.exp() * (clean - moved.log_softmax(-1))).sum(-1).mean(-1))
    found = tm.run_sweep(SWEEP, theirs, ids)
    assert found.kl.values[0] == pytest.approx(torch.stack(expected).numpy(), rel=1e-4)
    assert found.kl.values.min() > 1e-3


def test_the_tokenizer_of_the_object_is_used_unless_another_is_given():
    theirs, own, other = hooked("gpt2"), make_tokenizer(bos_token="!"), make_tokenizer()
    assert tm.load_model(theirs).tokenizer is None
    theirs.tokenizer = own
    loaded = tm.load_model(theirs, name="mine")
    assert loaded.tokenizer is own and tm.load_model(theirs, other).tokenizer is other
    assert loaded.model.hf.config.bos_token_id == own.bos_token_id
    assert loaded.model.name == "mine" and loaded.facts["revision"] == "in memory, of a HookedTransformer"


def test_its_weights_are_copied_and_the_random_state_is_kept():
    theirs, before = hooked("llama", dtype=torch.float32), torch.random.get_rng_state()
    loaded = tm.load_model(theirs)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert loaded.facts["precision"] == "float32-difference"
    kept = loaded.model.hf.get_input_embeddings().weight.clone()
    theirs.W_E.data.zero_()
    assert torch.equal(loaded.model.hf.get_input_embeddings().weight, kept)
    assert loaded.model.vocabulary == VOCABULARY and loaded.model.context == CONTEXT


def double(x, hook):
    return 2 * x


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"attn_only": True}, "has attn_only=True"),
        ({"act_fn": "solu"}, "activation function 'solu'"),
        ({"positional_embedding_type": "alibi"}, "is a alibi LN plain"),
        ({"normalization_type": None}, "standard None plain"),
        ({"d_vocab_out": 7}, "predicts 7"),
        ({"attention_dir": "bidirectional"}, "attention_dir='bidirectional'"),
    ],
)
def test_what_cannot_be_put_back_is_refused_by_name(others, sentence):
    others = {"original_architecture": None} | others
    with pytest.raises(TiltmeterError, match=sentence) as refused:
        tm.load_model(hooked("gpt2", False, **others), name="mine")
    assert str(refused.value).startswith("mine is a HookedTransformer that") and "\n" not in str(refused.value)


def test_hooks_that_change_its_output_are_noticed():
    theirs = hooked("gpt2")
    theirs.add_perma_hook("blocks.1.hook_resid_post", double)
    with pytest.raises(TiltmeterError, match=r"computes something else than a GPT2LMHeadModel .* differ by"):
        tm.load_model(theirs)
    theirs.reset_hooks(including_permanent=True)
    tm.load_model(theirs)


def test_half_precision_and_weights_without_numbers_are_refused():
    with pytest.raises(TiltmeterError, match=r"in bfloat16, .*model\.to\(torch\.float32\)"):
        tm.load_model(hooked("gpt2", dtype=torch.bfloat16))
    theirs = hooked("gpt2")
    theirs.blocks[1].mlp.W_in.data[0, 0] = torch.nan
    with pytest.raises(TiltmeterError, match=r"no numbers for transformer\.h\.1\.mlp\.c_fc\.weight"):
        tm.load_model(theirs)
