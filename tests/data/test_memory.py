"""Tokens in memory give what a file with the same content gives; what cannot be right is refused."""

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

import tiltmeter as tm
from tiltmeter.data.token_set import TokenSet
from token_cases import IDS, ascii_ids, ascii_tokenizer, assert_sentence, load, make_tokenizer, write_jsonl

ROWS = IDS.tolist()
DIGEST = TokenSet(torch.from_numpy(IDS), "other name", None, {}).sha256()


def dataset(**columns):
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


KINDS = {
    "tensor": lambda: torch.from_numpy(IDS),
    "int32 tensor": lambda: torch.from_numpy(IDS).int(),
    "array": lambda: IDS,
    "unsigned array": lambda: IDS.astype(">u2"),
    "transposed array": lambda: np.ascontiguousarray(IDS.T).T,
    "lists": lambda: ROWS,
    "tuples": lambda: tuple(map(tuple, ROWS)),
    "list of tensors": lambda: list(torch.from_numpy(IDS)),
    "list of arrays": lambda: list(IDS),
    "dict": lambda: {"input_ids": ROWS, "token_type_ids": ROWS},
    "dict of tensors": lambda: {"tokens": torch.from_numpy(IDS)},
    "BatchEncoding": lambda: BatchEncoding({"input_ids": IDS}, tensor_type="pt"),
    "Dataset": lambda: dataset(input_ids=ROWS, id=list(range(5))),
    "Dataset of tensors": lambda: dataset(input_ids=ROWS).with_format("torch"),
    "stream": lambda: dataset(tokens=ROWS).to_iterable_dataset(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_object_gives_the_same_ids(kind, caplog):
    given = KINDS[kind]()
    tokens = load(given)
    assert tokens.ids.tolist() == ROWS and tokens.sha256() == DIGEST
    assert tokens.name == "tokens in memory" and tokens.facts["in_memory"] == type(given).__name__
    assert load(given, at_most=2, length=4).ids.tolist() == IDS[:2, :4].tolist()
    assert load(given, name="mine").name == "mine"
    assert not caplog.text


def test_ids_are_not_shared_with_the_object():
    given = torch.from_numpy(IDS.copy())
    tokens = load(given)
    given.zero_()
    assert tokens.ids.tolist() == ROWS


def test_texts_are_packed_as_those_of_a_file(tmp_path):
    texts, tokenizer = ["abcdefg", "hi", "jklmn"], ascii_tokenizer()
    file = write_jsonl(tmp_path / "a.jsonl", *({"text": text} for text in texts))
    expected = load(file, tokenizer, length=4)
    assert sorted(expected.ids.tolist()) == [[0, *ascii_ids("abc")], [0, *ascii_ids("jkl")], ascii_ids("defg")]
    for given in (texts, tuple(texts), {"text": texts}, dataset(text=texts), dataset(other=[1] * 3, content=texts)):
        tokens = load(given, tokenizer, length=4)
        assert tokens.sha256() == expected.sha256() and tokens.boundary == expected.boundary == 0
        assert tokens.facts["documents_too_short"] == "1"
    begun = load(texts, tokenizer, length=4, bos_before="sequence")
    assert sorted(begun.ids.tolist()) == [[0, *ascii_ids(text)] for text in ("abc", "def", "jkl")]
    assert load({"a": texts, "text": ["x"] * 3}, tokenizer, column="a", length=4).sha256() == expected.sha256()


PADDED = [[9, 9, 1, 2, 3], [9, 4, 5, 6, 9], [7, 8, 9, 0, 0]]
MASK = [[0, 0, 1, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
BARE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
@pytest.mark.parametrize("mask_type", [list, lambda mask: np.array(mask, bool), torch.tensor])
def test_masked_positions_are_left_out(kind, mask_type):
    ids, mask = kind(PADDED), mask_type(MASK)
    for tokens in (
        load(ids, mask=mask),
        load({"input_ids": ids, "attention_mask": mask}),
        load({"input_ids": ids}, mask=mask),
        load(BatchEncoding({"input_ids": ids, "attention_mask": mask})),
    ):
        assert tokens.ids.tolist() == BARE
        assert tokens.facts["mask"] == "attention_mask: positions where it is 0 were left out"


def test_a_tokenizers_own_batch_is_read():
    tokenizer = make_tokenizer(pad_token="!")
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = tokenizer(["abcd", "ef"], padding=True, return_tensors="pt")
        assert load(batch, tokenizer, length=2).ids.tolist() == [ascii_ids("ab"), ascii_ids("ef")]
        assert_sentence("differ in length", batch, tokenizer)
        saved = dataset(**{key: value.tolist() for key, value in batch.items()})
        assert load(saved, tokenizer, length=2).ids.tolist() == [ascii_ids("ab"), ascii_ids("ef")]


def test_padding_without_a_mask_is_warned_of(caplog):
    load(torch.tensor([[5, 9, 9, 9, 9], [6, 9, 9, 9, 9]]))
    assert "2 of the 2 sequences of tokens in memory look padded with token 9" in caplog.text


NAN = torch.full((2, 3), torch.nan)
WRONG = [
    (torch.arange(6), r"is one-dimensional \(6 ids\), .*give ids\[None\]"),
    ([1, 2, 3], r"is one list of ids, .*give \[ids\]"),
    (torch.zeros(2, 3), "holds floating-point numbers; expected integer token ids"),
    (NAN, "holds floating-point numbers, NaN among them"),
    (NAN.bfloat16(), "floating-point numbers, NaN among them"),
    (torch.zeros(2, 3, dtype=torch.bool), "holds bool values"),
    ([[True, False]], "holds true or false"),
    (torch.zeros(1, 2, 3, dtype=torch.long), r"has shape \(1, 2, 3\), expected two dimensions"),
    (torch.zeros(2, 3, dtype=torch.long).to_sparse(), "a tensor that holds no plain numbers"),
    (torch.zeros(2, 3, dtype=torch.long, device="meta"), "a tensor that holds no plain numbers"),
    (np.ma.masked_array(IDS, IDS > 3), r"is a masked array; give its data, and mask=~ids\.mask"),
    ([[1, 2, 3], [4, 5]], "differ in length"),
    ([[[1], [2]], [[3], [4]]], "has 2 dimensions"),
    ([[1, 2], ["a", "b"]], "Sequence 1 of 'tokens in memory' holds"),
    (torch.tensor([[1, 300]]), "go up to 300 but the model's vocabulary has 300"),
    (torch.tensor([[1, -100]]), "go down to -100"),
    ([[2**70]], "holds object values"),
    ([], "is empty"),
    (torch.zeros(0, 3, dtype=torch.long), "is empty"),
    (torch.zeros(3, 0, dtype=torch.long), "begin with an empty one"),
    ({}, "no column"),
    ({"ids": ROWS}, r"name one of those it has \('ids'\)"),
    ({"input_ids": 5}, "column of type int"),
    ({"input_ids": ROWS, "attention_mask": [[1] * 6]}, r"different lengths \(5 in input_ids, 1 in attention_mask\)"),
    (["text", 3], "Document 1 .* is of type int"),
    ("a text, not a name", r"or in Python a list of texts"),
    (7, "is a int; expected a name, a tensor or array"),
    (None, "is a NoneType"),
]


@pytest.mark.parametrize(("given", "sentence"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_right_is_refused(given, sentence):
    assert_sentence(sentence, given, ascii_tokenizer())


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (IDS, {"mask": np.ones((5, 5))}, r"has shape \(5, 5\), but the token ids \(5, 6\)"),
        (ROWS, {"mask": [[1] * 6] * 4}, "different lengths"),
        (IDS, {"mask": [[1], [1, 1]]}, r"has shape \(0,\)"),
        (IDS, {"mask": IDS}, "as many 0 and 1"),
        ([[1, 2, 3]], {"mask": [[1, 0, 1]]}, "masked positions between its tokens"),
        (["text"], {"mask": [[1]]}, "text has no padding"),
        ("nano", {"mask": IDS}, "which is a name"),
        ({"input_ids": ROWS, "attention_mask": ROWS}, {"mask": ROWS}, "of its own"),
        (IDS, {"column": "text"}, "has no columns"),
        (IDS, {"revision": "main"}, "is not a data set on the hub"),
        (IDS, {"length": 17}, "expected 1 to 16"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, options, sentence):
    assert_sentence(sentence, given, ascii_tokenizer(), **options)


def test_data_sets_with_splits_are_refused():
    datasets = pytest.importorskip("datasets")
    several = datasets.DatasetDict({"train": dataset(tokens=ROWS)})
    assert_sentence(r"are a DatasetDict; give one of its splits \('train'\)", several)
    assert_sentence("a column attention_mask beside the ids", dataset(tokens=ROWS), mask=IDS)


def test_text_without_a_tokenizer_is_refused():
    assert_sentence("is text and there is no tokenizer", ["some text"], None)


def test_a_model_loads_them_for_itself():
    loaded = tm.load_model("nano")
    tokens = loaded.load_tokens(
        [f"def f(x):\n    return {one}\n" * 9 for one in range(3)], length=8, at_most=3, name="mine"
    )
    assert tokens.ids.shape == (3, 8) and tokens.name == "mine"
    assert loaded.load_tokens(tokens.ids).sha256() == tokens.sha256()
    assert loaded.load_tokens(tokens.ids, documents=[0, 0, 1]).sha256() != tokens.sha256()
    assert loaded.load_tokens(tokens.ids, mask=torch.ones(3, 8)).boundary == tokens.boundary
