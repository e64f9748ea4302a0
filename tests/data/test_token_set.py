"""Token sequences: packing of documents, stored ids in every kind of file, and `nano`."""

import hashlib
import logging
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file
from transformers import AutoTokenizer

import tiltmeter
from tiltmeter.data import stdlib
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from token_cases import (
    IDS,
    ascii_ids,
    ascii_tokenizer,
    assert_sentence,
    load,
    make_tokenizer,
    small_library,
    stored,
    write_jsonl,
)

NANO_FOLDER = Path(tiltmeter.__file__).parent / "models" / "nano"


@pytest.fixture(scope="module")
def tokenizer():
    return ascii_tokenizer()


@pytest.fixture
def modules(monkeypatch):
    return small_library(monkeypatch)


# Documents


def test_each_document_begins_with_the_boundary_and_shares_no_sequence(tmp_path, tokenizer):
    file = write_jsonl(tmp_path / "a.jsonl", {"text": "abcdefg"}, {"text": "hi"}, {"text": "jklmn"})
    tokens = load(file, tokenizer, length=4)
    expected = [[0, *ascii_ids("abc")], ascii_ids("defg"), [0, *ascii_ids("jkl")]]
    assert sorted(tokens.ids.tolist()) == sorted(expected)
    assert tokens.ids.dtype == torch.int64
    assert tokens.boundary == 0
    assert tokens.name == str(file)
    assert tokens.facts == {
        "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "column": "text",
        "documents_read": "3",
        "documents_too_short": "1",
        "boundary": "'<|endoftext|>': the tokenizer's bos",
    }


def test_each_sequence_begins_with_the_boundary_where_asked(tmp_path, tokenizer):
    file = write_jsonl(tmp_path / "a.jsonl", {"text": "abcdefg"}, {"text": "hi"}, {"text": "jklmn"})
    tokens = load(file, tokenizer, length=4, bos_before="sequence")
    assert sorted(tokens.ids.tolist()) == [[0, *ascii_ids(text)] for text in ("abc", "def", "jkl")]
    rows = write_jsonl(tmp_path / "b.jsonl", *({"tokens": row} for row in ([0, 5, 6, 7], [5, 6, 7, 8], [9, 9, 9])))
    assert load(rows, tokenizer, length=4, bos_before="sequence").ids.tolist() == [
        [0, 5, 6, 7],
        [0, 5, 6, 7],
        [0, 9, 9, 9],
    ]
    assert load(rows, tokenizer, length=4).ids.tolist() == [[0, 5, 6, 7], [5, 6, 7, 8]]


def test_sequences_that_repeat_are_said(tmp_path, caplog):
    np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4], [5, 6], [3, 4]]))
    load(tmp_path / "a.npy")
    assert "Of the 4 sequences" in caplog.text and "only 3 are distinct" in caplog.text
    caplog.clear()
    load(stored(tmp_path, "npy"))
    assert not caplog.text


def test_no_boundary_to_begin_with(tmp_path, tokenizer):
    file = write_jsonl(tmp_path / "a.jsonl", {"text": "abcdefg"})
    asked = {"length": 4, "bos_before": "sequence"}
    assert_sentence("has neither bos nor eos", file, make_tokenizer(), **asked)
    assert_sentence("there is no tokenizer", stored(tmp_path, "npy"), None, **asked)
    assert_sentence("choose document, sequence, both", file, tokenizer, bos_before="line")
    assert_sentence("no whole sequence of 1 tokens", file, tokenizer, length=1, bos_before="sequence")


def test_a_document_begins_with_the_boundary_or_with_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("abcd")
    both = make_tokenizer(bos_token="B", eos_token="E")
    begins = {both.bos_token_id: both, 0: make_tokenizer(eos_token="<|endoftext|>")}
    for boundary, beginning in begins.items():
        tokens = load(tmp_path / "a.txt", beginning, length=4, vocabulary=400)
        assert tokens.ids.tolist() == [[boundary, *ascii_ids("abc")]]
        assert tokens.boundary == boundary
    tokens = load(tmp_path / "a.txt", make_tokenizer(), length=4)
    assert tokens.ids.tolist() == [ascii_ids("abcd")]
    assert tokens.boundary is None


@pytest.mark.parametrize(("context", "expected"), [(16, 16), (128, 128), (1024, 128)])
def test_text_has_at_most_128_tokens_a_sequence_unless_asked(tmp_path, tokenizer, context, expected):
    (tmp_path / "a.md").write_text("x" * 2000)
    assert load(tmp_path / "a.md", tokenizer, context=context).ids.shape[1] == expected
    assert load(tmp_path / "a.md", tokenizer, context=context, length=7).ids.shape[1] == 7


def test_a_long_document_of_any_characters_can_be_read_back(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer = ascii_tokenizer()  # it complains once
    text = "héllo wörld\n\tεὖ — 好 " * 50
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    whole = len(tokenizer(text, verbose=False)["input_ids"]) + 1
    ids = load(tmp_path / "a.py", tokenizer, length=whole, context=whole).ids.flatten()
    assert tokenizer.decode(ids[1:]) == text
    complaints = [record for record in caplog.records if not record.name.startswith("tiltmeter")]
    assert not complaints, "the tokenizer complained of the length"


# Stored ids


KINDS = ["npy", "safetensors", "parquet", "jsonl", "saved"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_ids(tmp_path, kind):
    path = stored(tmp_path, kind)
    tokens = load(path)
    assert tokens.ids.tolist() == IDS.tolist()
    assert tokens.ids.dtype == torch.int64
    assert tokens.boundary is None
    assert tokens.sha256() == TokenSet(torch.from_numpy(IDS), "other name", 3, {}).sha256()
    assert load(path, at_most=2, length=4).ids.tolist() == IDS[:2, :4].tolist()


def test_a_tokenizer_names_the_boundary_of_stored_ids(tmp_path, tokenizer):
    assert load(stored(tmp_path, "npy"), tokenizer).boundary == 0


def test_longer_rows_are_cut_and_shorter_ones_dropped_and_counted(tmp_path):
    rows = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [], list(range(100))]
    tokens = load(write_jsonl(tmp_path / "a.jsonl", *({"tokens": row} for row in rows)), length=3)
    assert tokens.ids.tolist() == [[1, 2, 3], [8, 9, 10], [0, 1, 2]]
    counts = {key: tokens.facts[key] for key in tokens.facts if key.startswith("rows")}
    assert counts == {"rows_read": "5", "rows_dropped_as_shorter": "2", "rows_cut_as_longer": "2"}


def test_the_column_is_the_one_asked_for_or_the_first_usual_one(tmp_path, tokenizer):
    record = {"content": "wxyz", "text": "abcd", "input_ids": [3, 4], "tokens": [1, 2], "mine": [5, 6]}
    expected = {
        "tokens": [[1, 2]],
        "input_ids": [[3, 4]],
        "text": [[0, 97], [98, 99]],
        "content": [[0, 119], [120, 121]],
    }
    for column, ids in expected.items():
        pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
        for file in (write_jsonl(tmp_path / "a.jsonl", record), tmp_path / "a.parquet"):
            tokens = load(file, tokenizer, length=2)
            assert sorted(tokens.ids.tolist()) == ids
            assert tokens.facts["column"] == column
            assert load(file, tokenizer, length=2, column="mine").ids.tolist() == [[5, 6]]
        del record[column]


def test_a_safetensors_file_of_several_tensors_needs_one_integer_matrix_or_a_name(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"mask": np.ones((5, 6), bool), "loss": np.ones((5, 6)), "ids": IDS, "lengths": np.arange(5)}, path)
    assert load(path).ids.tolist() == IDS.tolist()
    save_file({"first": IDS, "second": IDS + 1}, path)
    assert load(path, column="second").ids.tolist() == (IDS + 1).tolist()
    with pytest.raises(TiltmeterError, match=r"name one of its tensors as the column .*'first', 'second'"):
        load(path)


def test_the_hash_is_of_the_shape_and_the_ids(tmp_path):
    np.save(tmp_path / "a.npy", IDS)
    tokens = load(tmp_path / "a.npy")
    assert tokens.sha256() == hashlib.sha256(b"(5, 6)" + IDS.astype("<i8").tobytes()).hexdigest()
    reshaped = TokenSet(tokens.ids.reshape(6, 5), tokens.name, None, {})
    changed = TokenSet(tokens.ids.index_fill(1, torch.tensor([5]), 299), tokens.name, None, {})
    assert len({tokens.sha256(), reshaped.sha256(), changed.sha256()}) == 3


# nano


def test_nano_is_every_whole_sequence_of_every_module(modules, tokenizer):
    tokens = load("nano", tokenizer, length=8)
    streams = [[0, *ascii_ids(text)] for text in modules.values()]
    expected = [stream[i : i + 8] for stream in streams for i in range(0, len(stream) - 7, 8)]
    assert sorted(tokens.ids.tolist()) == sorted(expected)
    assert tokens.boundary == 0
    assert tokens.facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert tokens.facts["modules"] == "8"


def test_the_first_sequences_of_nano_are_of_many_modules(modules, tokenizer):
    for i in range(8):
        modules[f"module{i}.part"] = chr(97 + i) * 400
    letters = load("nano", tokenizer, length=8, at_most=16).ids[:, -1]
    assert len(letters.unique()) >= 6


def test_a_missing_module_takes_only_its_owat_most_away(modules, tokenizer):
    whole = load("nano", tokenizer, length=8).ids
    del modules["module3.part"]
    without = load("nano", tokenizer, length=8).ids
    assert without.tolist() == [row for row in whole.tolist() if row[-1] != ord("d")]
    assert len(without) < len(whole)


def test_fewer_sequences_of_nano_are_the_first_of_all(modules, tokenizer):
    whole = load("nano", tokenizer, length=8).ids
    assert load("nano", tokenizer, length=8, at_most=5).ids.tolist() == whole[:5].tolist()


def test_the_hash_of_the_text_sees_names_and_texts(modules, tokenizer):
    def text_hash():
        return load("nano", tokenizer, length=8).facts["text_sha256"]

    hashes = {text_hash()}
    modules["module3.part"] += "!"
    hashes.add(text_hash())
    modules["module3.other"] = modules.pop("module3.part")
    hashes.add(text_hash())
    assert len(hashes) == 3
    modules["module3.part"] = modules.pop("module3.other").removesuffix("!")
    assert text_hash() in hashes


def test_nano_has_4096_sequences_of_held_out_modules():
    tokenizer = AutoTokenizer.from_pretrained(NANO_FOLDER)
    tokens = load("nano", tokenizer, vocabulary=len(tokenizer), context=128)
    assert tokens.ids.shape[0] >= 4096
    assert tokens.ids.shape[1] == 128
    held_out = "".join(text for _, text in stdlib.texts("held-out"))
    for ids in tokens.ids[:50]:
        # the ends of a sequence may be parts of a character
        assert tokenizer.decode(ids[ids != tokens.boundary]).strip("\ufffd") in held_out


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (IDS, r"in a ndarray; give torch\.tensor\(ids\)"),
        (torch.arange(5), r"shape \(5,\); expected \[sequence, position\]"),
        (torch.zeros(4, 0, dtype=torch.long), r"shape \(4, 0\)"),
        (torch.zeros(2, 3, dtype=torch.int32), r"torch\.int32 on cpu; expected torch\.int64"),
        (torch.zeros(2, 3), r"torch\.float32 on cpu"),
    ],
    ids=["numpy", "1-D", "empty", "int32", "float"],
)
def test_ids_of_another_kind_are_refused(ids, sentence, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as for users: else shapes are checked first
    with pytest.raises(TiltmeterError, match=sentence):
        TokenSet(ids, "mine", None, {})
