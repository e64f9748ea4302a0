"""The token that begins a document: never one of a dialogue, and the facts say which and why."""

import pytest
from tokenizers import AddedToken, processors

from tiltmeter.data.boundary import boundary_of
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiny_models import tiny
from token_cases import ascii_ids, assert_sentence, load, make_tokenizer

TURNS = (
    "<|im_end|>",
    "<|im_start|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<turn|>",
    "<|user|>",
    "<|assistant|>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
)


def putting_before(*before, **special):
    """A tokenizer that itself begins texts with these tokens."""
    tokenizer = make_tokenizer(**special)
    tokenizer.add_special_tokens({"additional_special_tokens": list(before)})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in before]
    form = " ".join([*before, "$A"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=ids)
    return tokenizer


@pytest.mark.parametrize("token", TURNS)
def test_the_end_of_a_turn_begins_no_document(tmp_path, token):
    tokenizer = make_tokenizer(eos_token=token)
    (tmp_path / "a.txt").write_text("abcd")
    for model_bos in (None, tokenizer.eos_token_id):
        tokens = load(tmp_path / "a.txt", tokenizer, length=4, vocabulary=400, model_bos=model_bos)
        assert tokens.boundary is None and tokens.ids.tolist() == [ascii_ids("abcd")]
        assert tokens.facts["boundary"] == f"none: the tokenizer's eos is {token!r}, which does not begin a document"
    assert_sentence("does not begin a document", tmp_path / "a.txt", tokenizer, length=4, bos_before="sequence")
    assert boundary_of(make_tokenizer(bos_token=token, eos_token=token)).token is None


@pytest.mark.parametrize("token", ["<s>", "<bos>", "<|begin_of_text|>", "[CLS]", "<|startoftext|>", "B"])
def test_any_other_bos_is_it(token):
    tokenizer = make_tokenizer(bos_token=token, eos_token="<|im_end|>")
    found = boundary_of(tokenizer)
    assert found == (tokenizer.bos_token_id, [tokenizer.bos_token_id], f"{token!r}: the tokenizer's bos")


def test_what_the_tokenizer_puts_before_a_text_is_it(tmp_path):
    one, two = putting_before("[CLS]", eos_token="</s>"), putting_before("[gMASK]", "<sop>", eos_token="<|endoftext|>")
    (tmp_path / "a.txt").write_text("abcd")
    for tokenizer, count in ((one, 1), (two, 2)):
        before = tokenizer("")["input_ids"]
        tokens = load(tmp_path / "a.txt", tokenizer, length=4, vocabulary=400)
        assert len(before) == count and tokens.boundary == before[0]
        assert tokens.ids.tolist() == [[*before, *ascii_ids("abcd")][:4]]
        assert "the tokenizer puts it before a text" in tokens.facts["boundary"]


def test_what_the_tokenizer_puts_after_a_text_is_not():
    tokenizer = make_tokenizer(eos_token="</s>")
    ids = [("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=ids)
    assert tokenizer("a")["input_ids"] == [97, tokenizer.eos_token_id]
    assert boundary_of(tokenizer).token is None


@pytest.mark.parametrize("token", ["<|endoftext|>", "<|end_of_text|>", "<|end_of_document|>"])
def test_an_eos_that_separates_documents_is_it_by_its_name(token):
    tokenizer = make_tokenizer(eos_token=token)
    assert boundary_of(tokenizer).before == [tokenizer.eos_token_id]
    assert boundary_of(tokenizer).why == f"{token!r}: the tokenizer's eos, which separates documents"


def test_another_eos_is_it_only_if_the_model_begins_with_it():
    tokenizer = make_tokenizer(eos_token="</s>")
    assert boundary_of(tokenizer).token is None
    assert boundary_of(tokenizer, 5).token is None  # an ordinary token: the configuration is not of this tokenizer
    assert boundary_of(tokenizer, tokenizer.eos_token_id).token == tokenizer.eos_token_id


def test_the_bos_of_the_model_is_it_where_the_tokenizer_only_ends_turns():
    tokenizer = make_tokenizer(eos_token="<|im_end|>")
    tokenizer.add_tokens([AddedToken("<|endoftext|>", special=True)], special_tokens=True)
    assert boundary_of(tokenizer).token is None
    assert boundary_of(tokenizer, 0) == (0, [0], "'<|endoftext|>': bos in the model's configuration")


def test_a_loaded_model_tells_its_own_bos(tmp_path):
    (tmp_path / "a.txt").write_text("abcd")
    tokenizer = make_tokenizer(eos_token="</s>")
    for bos in (None, tokenizer.eos_token_id):
        hf = tiny("gpt2", vocab_size=400, bos_token_id=bos)
        loaded = LoadedModel(SplitModel(hf), tokenizer, {})
        assert loaded.load_tokens(str(tmp_path / "a.txt"), length=4).boundary == bos
