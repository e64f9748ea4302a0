"""Documents of sequences: which they are, in which order sequences are taken, and that the order is the text's alone."""

import hashlib

import jaxtyping
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from tiltmeter.data.documents import connected
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from token_cases import IDS, MODULES, ascii_tokenizer, assert_sentence, load, make_tokenizer, small_library, write_jsonl

TEXTS = [letter * (12 * size + 3) for letter, size in zip("abcdefghij", [9, 1, 4, 2, 0, 7, 1, 3, 12, 5], strict=True)]


def one_of_each(texts, length):
    """The order of `TEXTS`, naively: pieces of each, by a hash; then rounds."""
    shelves = []
    for text in texts:
        address = hashlib.sha256(text.encode()).hexdigest()
        pieces = [text[start : start + length] for start in range(0, len(text) - length + 1, length)]
        keys = {index: hashlib.sha256(f"{address}/{index}".encode()).digest() for index in range(len(pieces))}
        shelves.append([pieces[index] for index in sorted(keys, key=keys.get)])
    return [shelf[turn] for turn in range(50) for shelf in shelves if turn < len(shelf)]


def test_one_sequence_of_each_document_comes_first():
    texts = ["".join(map(chr, np.random.default_rng(one).integers(48, 120, len(TEXTS[one])))) for one in range(10)]
    tokens = load(texts, make_tokenizer(), length=6)
    assert [bytes(row).decode() for row in tokens.ids.tolist()] == one_of_each(texts, 6)
    where = [next(i for i, text in enumerate(texts) if bytes(row).decode() in text) for row in tokens.ids.tolist()]
    met = list(dict.fromkeys(where))
    assert tokens.document.tolist() == [met.index(one) for one in where]


@pytest.mark.parametrize("kind", ["texts", "jsonl", "parquet", "rows with documents", "nano"])
def test_fewer_sequences_are_the_first_of_more(tmp_path, kind, monkeypatch):
    small_library(monkeypatch)
    rows = {"tokens": np.random.default_rng(0).integers(0, 99, (40, 6)).tolist(), "document_id": [*range(8)] * 5}
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet")
    given = {
        "texts": TEXTS,
        "jsonl": write_jsonl(tmp_path / "a.jsonl", *({"text": text} for text in TEXTS)),
        "parquet": tmp_path / "a.parquet",
        "rows with documents": rows,
        "nano": "nano",
    }[kind]
    whole = load(given, ascii_tokenizer(), length=6)
    assert len(set(whole.document.tolist())) < len(whole.ids)
    for count in (1, 5, 9, 17, len(whole.ids) - 1):
        few = load(given, ascii_tokenizer(), length=6, at_most=count)
        assert few.ids.tolist() == whole.ids[:count].tolist()
        assert few.document.tolist() == whole.document[:count].tolist()
        assert few.sha256() == whole.first(count).sha256()


def test_as_many_documents_are_taken_as_there_are(monkeypatch):
    small_library(monkeypatch)
    for given, documents in ((TEXTS, 9), ("nano", len(MODULES))):  # one text is shorter than a sequence
        found = load(given, ascii_tokenizer(), length=6).document
        assert sorted(found[:documents].tolist()) == list(range(documents))
        assert found[documents] < documents


def test_the_sequences_of_a_document_are_not_taken_from_its_beginning_on():
    text = "".join(map(chr, np.random.default_rng(5).integers(48, 120, 600)))
    starts = [text.index(bytes(row).decode()) for row in load([text], make_tokenizer(), length=6).ids.tolist()]
    assert sorted(starts) == list(range(0, 600, 6)) and abs(np.corrcoef(starts, range(100))[0, 1]) < 0.3


def test_equal_texts_are_one_document():
    assert load(["abcdef", "xyzxyz", "abcdef"], make_tokenizer(), length=6).document.tolist() == [0, 1, 0]


def test_a_stored_row_is_a_document_of_its_own():
    tokens = load(IDS)
    assert tokens.documents is None and tokens.document.tolist() == [0, 1, 2, 3, 4]
    assert tokens.sha256() == load(IDS, documents=[7, 3, 5, 1, 9]).sha256(), "five documents are five documents"


@pytest.mark.parametrize(
    "documents", [[4, 4, 1, 4, 1], list("ddbdb"), np.array([4, 4, 1, 4, 1]), torch.tensor([4, 4, 1, 4, 1])]
)
def test_documents_may_be_given(documents):
    for tokens in (load(IDS, documents=documents), load(IDS.tolist(), documents=documents)):
        assert tokens.document.tolist() == [0, 1, 0, 1, 0]
        assert sorted(tokens.ids[:, 0].tolist()) == [0, 6, 12, 18, 24]
        assert {*tokens.ids[::2, 0].tolist()} == {0, 6, 18}
    texts = load(["abcd", "efgh", "ijkl", "mnop", "qrst"], make_tokenizer(), length=4, documents=documents)
    assert texts.document.tolist() == [0, 1, 0, 1, 0]


def test_rows_that_share_a_document_are_of_one():
    """A row of several documents belongs to all of them, so that what they share is in one cluster."""
    packed = np.array([[1, 1, 2], [3, 3, 3], [2, 2, 4], [5, 5, 5], [4, 6, 6], [3, 3, 3]])
    assert load(np.arange(18).reshape(6, 3), documents=packed).document.tolist() == [0, 1, 2, 0, 1, 0]

    def naive(documents):
        groups = [{row} for row in range(len(documents))]
        for _ in documents:
            for one in groups:
                for row in [*one]:
                    one |= {other for other in range(len(documents)) if {*documents[row]} & {*documents[other]}}
        return [min(one) for one in groups]

    for seed in range(20):
        documents = np.random.default_rng(seed).integers(0, 30, (12, 3))
        found = connected(documents)
        expected = naive(documents.tolist())
        assert [[one == other for other in found] for one in found] == [[a == b for b in expected] for a in expected]


def test_a_column_says_which_document_a_row_is_from(tmp_path):
    records = [
        {"input_ids": row, "document_id": f"d{one}"} for row, one in zip(IDS.tolist(), [1, 1, 2, 2, 1], strict=True)
    ]
    save_file({"ids": IDS, "document_id": np.array([1, 1, 2, 2, 1])}, tmp_path / "a.safetensors")
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    table = {key: [one[key] for one in records] for key in records[0]}
    for given in (
        write_jsonl(tmp_path / "a.jsonl", *records),
        tmp_path / "a.parquet",
        tmp_path / "a.safetensors",
        table,
    ):
        tokens = load(given)
        assert tokens.document.tolist() == [0, 1, 0, 1, 0]
        assert {*tokens.ids[1::2, 0].tolist()} == {12, 18}
    masked = {**table, "attention_mask": np.ones_like(IDS)}
    assert load(masked).document.tolist() == [0, 1, 0, 1, 0]


def test_documents_that_cannot_be_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as for users: else shapes are checked first
    np.save(tmp_path / "a.npy", IDS)
    assert_sentence(r"5 rows, but documents were given for 4; give one for each row", IDS, documents=[1, 2, 3, 4])
    assert_sentence(r"5 rows, but documents were given for 6", IDS, documents=range(6))
    assert_sentence("not one integer or text for each row", IDS, documents=np.ones(5))
    assert_sentence("not one integer or text for each row", IDS, documents=[[1, 2], [3]])
    assert_sentence("which is a name: store a column document_id", str(tmp_path / "a.npy"), documents=[1] * 5)
    assert_sentence("document_id of type float", {"tokens": IDS, "document_id": [0.5] * 5})
    with pytest.raises(TiltmeterError, match=r"5 sequences and documents of shape \(4,\)"):
        TokenSet(torch.from_numpy(IDS), "mine", None, {}, np.arange(4))


def test_the_hash_is_of_the_documents_too():
    ids = torch.from_numpy(IDS)
    hashes = {
        TokenSet(ids, "", None, {}, documents).sha256()
        for documents in (None, np.zeros(5, int), np.array([0, 0, 1, 2, 3]))
    }
    assert len(hashes) == 3
    assert TokenSet(ids, "", None, {}, np.array([9, 9, 9, 9, 9])).sha256() in hashes, "numbers are names"
