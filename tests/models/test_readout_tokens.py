"""The tokens that readouts name: which token a text means, and what is refused."""

from importlib import resources

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.readout_tokens import parse_tokens, text_of


@pytest.fixture(scope="module")
def nano():
    """Byte-level BPE, as GPT-2's."""
    return AutoTokenizer.from_pretrained(str(resources.files("tiltmeter") / "models" / "nano"))


@pytest.fixture(scope="module")
def llama():
    """A tokenizer that puts a space before every text, as Llama 2's does."""
    words = ["▁a", "▁Paris", "Paris", "▁", "ian", "<unk>", "\n"]
    model = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges=[], ignore_merges=True))
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    model.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")


def ids(given, tokenizer, vocabulary=4096):
    return [token.id for token in parse_tokens(f"prob:{given}", given, vocabulary, tokenizer)]


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("self", ["self"]),
        ('" self"', [" self"]),
        ('" self",return', [" self", "return"]),
        ('"self" , " return"', ["self", " return"]),
        ('","', [","]),
        ('"#"', ["#"]),
        (r'"\n"', ["\n"]),
        (r'"\""', ['"']),
        ("(,)", ["(", ")"]),
    ],
)
def test_a_text_is_the_token_that_encodes_it(nano, given, texts):
    assert ids(given, nano) == [nano.encode(text)[0] for text in texts]
    assert [nano.decode([one]) for one in ids(given, nano)] == texts


def test_a_space_at_the_beginning_is_part_of_a_token(nano):
    (plain,), (spaced,) = ids("self", nano), ids('" self"', nano)
    assert plain != spaced
    assert [text_of(nano, one) for one in (plain, spaced)] == ["self", " self"]


def test_ids_are_taken_as_they_are(nano):
    assert ids("#12,#4095", nano) == [12, 4095]
    assert ids(" #12 , #13", None) == [12, 13]
    with_text, without = (parse_tokens("prob:#12", "#12", 4096, one)[0] for one in (nano, None))
    assert (with_text.shown, without.shown) == (f'"{nano.decode([12])}"', "#12")


def test_where_the_tokenizer_adds_a_space_a_text_is_still_what_the_token_is_inside_a_sequence(llama):
    assert llama.encode("Paris", add_special_tokens=False) == [1]  # the token of " Paris"
    assert ids('" Paris"', llama) == [1]
    assert ids("Paris", llama) == [2]
    with pytest.raises(TiltmeterError, match="not the text of one token"):
        ids("Parisian", llama)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (" self", r"""has a space at its end or beginning.*write " self" with the space, or 'self' without"""),
        ("self ,return", "has a space at its end or beginning"),
        ('" selfie"', r'reads it as " self" \(#271\) and "ie" \(#\d+\); give the exact text of a token'),
        ('""', "reads nothing in it"),
        ("#4096", "The token #4096 of .* does not exist: the model has 4,096, from #0 to #4095"),
        ("#x", "could not be read from '#x' on"),
        ("#1x", "could not be read from 'x' on"),
        ("self,", "could not be read from the end on"),
        ("", "could not be read from the end on"),
        ('"self', "could not be read from"),
        (r'"\q"', "is not a JSON string"),
    ],
)
def test_near_misses_are_refused_in_a_sentence(nano, given, message):
    with pytest.raises(TiltmeterError, match=message) as refused:
        ids(given, nano)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


def test_a_text_needs_a_tokenizer_and_a_token_of_the_model():
    with pytest.raises(TiltmeterError, match="is a text, and the model has no tokenizer; give the token's id"):
        ids("self", None)


def test_a_token_beyond_the_models_vocabulary_is_refused(nano):
    (self_,) = ids("self", nano)
    with pytest.raises(TiltmeterError, match=f"The token #{self_} of prob:self does not exist"):
        ids("self", nano, vocabulary=self_)
