"""Every wrong token input is refused in one sentence, and no pickle is ever loaded."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from token_cases import IDS, ascii_tokenizer, assert_sentence, load, small_library, stored, write_jsonl


@pytest.fixture(scope="module")
def tokenizer():
    return ascii_tokenizer()


@pytest.fixture
def modules(monkeypatch):
    return small_library(monkeypatch)


def save_npy(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((0, 4), int), "holds no sequences"),
        (np.zeros((4, 0), int), "empty"),
        (np.arange(4), r"shape \(4,\), expected two dimensions"),
        (np.zeros((2, 3, 4), int), r"shape \(2, 3, 4\), expected two dimensions"),
        (np.zeros((2, 4)), "floating-point numbers; expected integer"),
        (np.array([[1.0, np.nan]]), "NaN among them"),
        (np.zeros((2, 4), bool), "bool values; expected integer"),
        (np.array([["a", "b"]]), "expected integer"),
        (np.array([[1, None]], object), "pickled objects are never loaded"),
        (np.array([[0, 299, 300]]), "go up to 300 but the model's vocabulary has 300"),
        (np.array([[2**64 - 1, 5]], np.uint64), "go up to 18446744073709551615"),
        (np.array([[0, -100]]), "go down to -100"),
        (np.zeros((2, 17), int), "have 17 tokens but the model's context is 16"),
    ],
)
def test_wrong_arrays(tmp_path, array, match):
    assert_sentence(match, save_npy(tmp_path / "a.npy", array))


def test_ids_that_are_cut_away_are_not_judged(tmp_path):
    path = save_npy(tmp_path / "a.npy", np.array([[1, 2, 3, 999], [999] * 4]))
    assert load(path, length=3, at_most=1).ids.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"tokens": [1, 2]}, {"tokens": [1.5, 2]}], "Sequence 1 .* floating-point"),
        ([{"tokens": [float("nan"), 2]}], "NaN among them"),
        ([{"tokens": [[1, 2], [3, 4]]}], "2 dimensions"),
        ([{"tokens": [[1, 2], [3]]}], "ragged"),
        ([{"tokens": 5}], "0 dimensions"),
        ([{"tokens": [1, None]}], "expected integer"),
        ([{"tokens": None}], "expected integer"),
        ([{"tokens": [1, 2]}, {"tokens": [1, 2, 3]}], "differ in length"),
        ([{"tokens": []}, {"tokens": [1, 2]}], "begin with an empty one"),
        ([{"tokens": []}], "empty"),
        ([{"tokens": [1, 2]}, {"text": "a"}], "Line 2 .* no column 'tokens' .*'text'"),
        ([{"mine": [1, 2], "yours": "a"}], "no column 'tokens' or .*'mine', 'yours'"),
        ([{"text": "abcdefgh"}, {"text": 5}], "Document 1 .* of type int, expected text"),
        ([[1, 2]], "Line 1 .* is a JSON list"),
    ],
)
def test_wrong_rows(tmp_path, tokenizer, rows, match):
    assert_sentence(match, write_jsonl(tmp_path / "a.jsonl", *rows), tokenizer)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "saved", "safetensors"])
def test_a_missing_column_is_told_with_those_that_exist(tmp_path, kind):
    existing = {"parquet": "'id', 'input_ids'", "safetensors": "'whatever'"}.get(kind, "'tokens'")
    assert_sentence(f"'nosuch'.*{existing}", stored(tmp_path, kind), column="nosuch")


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet", "jsonl", "txt"])
def test_empty_and_damaged_files(tmp_path, tokenizer, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"")
    assert_sentence("is an empty file", path, tokenizer)
    path.write_bytes(b"\xff\xfe nonsense\n" * 20)
    assert_sentence("UTF-8|not a plain NumPy array|could not be read", path, tokenizer)


@pytest.mark.parametrize("kind", ["npy", "safetensors", "parquet"])
def test_truncated_files(tmp_path, kind):
    path = stored(tmp_path, kind)
    path.write_bytes(path.read_bytes()[:-8])
    assert_sentence("not a plain NumPy array|could not be read", path)


def test_blank_and_broken_lines_of_json(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n")
    assert_sentence("holds no sequences", path)
    path.write_text('{"tokens": [1]}\n{"tokens": [1\n')
    assert_sentence("Line 2 .* is not JSON", path)


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "pkl", "pickle", "PT"])
def test_pickles_are_refused_by_their_suffix(tmp_path, suffix):
    torch.save(torch.from_numpy(IDS), tmp_path / f"a.{suffix}")
    assert_sentence("is a pickle .* save the token ids as .safetensors or .npy", tmp_path / f"a.{suffix}")


class Trap:
    """Unpickling one leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet", "jsonl", "txt", "pkl"])
def test_no_pickle_is_ever_loaded(tmp_path, tokenizer, suffix):
    mark, path = tmp_path / "mark", tmp_path / f"a.{suffix}"
    array = np.empty((1, 2), object)
    array[:] = Trap(mark)
    np.save(tmp_path / "object.npy", array)
    for content in ((tmp_path / "object.npy").read_bytes(), pickle.dumps(Trap(mark))):
        path.write_bytes(content)
        assert_sentence(".", path, tokenizer)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists(), "the trap does not work"


def test_a_half_precision_tensor_is_told_to_be_floating_point(tmp_path):
    save_file({"ids": torch.ones(2, 3, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert_sentence("floating-point", tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("missing.npy", "no token file"),
        ("a/b/missing.parquet", "no token file"),
        ("owner/missing.jsonl", "no token file"),
        ("nonsense", "no tokens 'nonsense': give 'nano'"),
        ("a/b/c", "no tokens"),
        ("./owner/data", "no tokens"),
        ("owner/data:train[:10]", "no tokens"),
        ("x" * 5000, "could not be looked up|no tokens"),
        (".", "not one that datasets.save_to_disk wrote"),
    ],
)
def test_names_that_stand_for_nothing(tmp_path, monkeypatch, name, match):
    monkeypatch.chdir(tmp_path)
    assert_sentence(match, name)


def test_a_file_of_unknown_kind(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n")
    assert_sentence("unknown kind, expected one of .npy, .safetensors", tmp_path / "a.csv")


def test_numbers_of_sequences(tmp_path, tokenizer, modules):
    path = stored(tmp_path, "npy")
    for name in (path, "nano"):
        assert_sentence("number of sequences is 0", name, tokenizer, at_most=0)
    assert load(path, at_most=5).ids.shape == load(path, at_most=6).ids.shape == (5, 6)


def test_lengths(tmp_path, tokenizer, modules):
    path = stored(tmp_path, "npy")
    (tmp_path / "a.txt").write_text("short")
    for name in (path, "nano", tmp_path / "a.txt"):
        assert_sentence("is 17 tokens, expected 1 to 16", name, tokenizer, length=17)
        assert_sentence("is 0 tokens, expected 1 to 16", name, tokenizer, length=0)
    assert_sentence("holds no whole sequence of 7 tokens", path, length=7)
    assert_sentence("holds no whole sequence", tmp_path / "a.txt", tokenizer)


def test_text_needs_a_tokenizer(tmp_path, modules):
    (tmp_path / "a.txt").write_text("some text")
    for name in ("nano", tmp_path / "a.txt", write_jsonl(tmp_path / "a.jsonl", {"text": "some text"})):
        assert_sentence("is text and there is no tokenizer", name)


def test_text_beyond_the_vocabulary_of_the_model(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("z" * 40)
    assert_sentence("go up to 122 but the model's vocabulary has 100", tmp_path / "a.txt", tokenizer, vocabulary=100)


def test_options_that_do_not_apply_are_refused(tmp_path, tokenizer, modules):
    (tmp_path / "a.txt").write_text("some text")
    for name in ("nano", tmp_path / "a.txt", stored(tmp_path, "npy")):
        assert_sentence("has no columns", name, tokenizer, column="tokens")
        assert_sentence("not a data set on the hub", name, tokenizer, revision="main")


def test_an_interpreter_without_its_library(modules, tokenizer):
    modules.clear()
    assert_sentence("interpreter has none", "nano", tokenizer)


def test_half_a_character_is_told(tmp_path, tokenizer):
    """Scraped text that was cut inside an emoji."""
    (tmp_path / "a.jsonl").write_text('{"text": "abc \\ud800 def"}\n')
    assert_sentence("Document 0 .* has half a character at 4", tmp_path / "a.jsonl", tokenizer)


def test_truth_values_are_no_token_ids(tmp_path, tokenizer):
    assert_sentence("true or false", write_jsonl(tmp_path / "a.jsonl", {"tokens": [True, 5, 9]}), tokenizer)


def test_a_byte_order_mark_is_no_text(tmp_path, tokenizer):
    for kind, content in {"txt": "abcdefgh", "jsonl": '{"text": "abcdefgh"}\n'}.items():
        found = []
        for mark in ("", "\ufeff"):
            file = tmp_path / f"{len(mark)}.{kind}"
            file.write_text(mark + content, encoding="utf-8")
            found.append(load(file, tokenizer, length=4).ids)
        assert torch.equal(*found), kind
