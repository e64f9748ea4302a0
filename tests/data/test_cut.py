"""Sequences that run on over the ends of documents, as published code packs them."""

import numpy as np
import pytest

from tiltmeter.data.documents import joined_by
from token_cases import ascii_tokenizer, load, make_tokenizer, small_library, write_jsonl

TEXTS = ["abcdefghijk", "lm", "n", "opqrstuvwxyz", "", "ABCDEF"]


def packed_naively(texts, length, begin=0):
    """Token by token: a boundary token where a document begins and, unless it has one already, a sequence."""
    found, row, of = [], [], []
    for number, text in enumerate(texts):
        for token in [begin, *map(ord, text)]:
            if not row and token != begin:
                row, of = [begin], [number]
            row, of = [*row, token], [*of, number]
            if len(row) == length:
                found.append((row, set(of)))
                row, of = [], []
    return found


@pytest.mark.parametrize("length", [2, 3, 5, 7])
def test_sequences_run_on_over_the_ends_of_documents(length):
    naive = packed_naively(TEXTS, length)
    tokens = load(TEXTS, ascii_tokenizer(), length=length, bos_before="both")
    assert sorted(tokens.ids.tolist()) == sorted(row for row, _ in naive)
    assert (tokens.ids[:, 0] == 0).all()
    groups = {tuple(row): group for row, group in zip(tokens.ids.tolist(), tokens.document.tolist(), strict=True)}
    for row, of in naive:
        for other, of_other in naive:
            if of & of_other:
                assert groups[tuple(row)] == groups[tuple(other)]
    assert length > 2 or len(set(groups.values())) > 1


def test_documents_give_one_sequence_before_any_gives_a_second_one(tmp_path):
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, 40))) for _ in range(12)]
    file = write_jsonl(tmp_path / "a.jsonl", *({"text": text} for text in texts))
    few = load(file, ascii_tokenizer(), length=8, bos_before="both", at_most=6)
    assert few.facts["documents_read"] == "7"  # the last sequence that begins in the sixth ends in the seventh
    whole = load(file, ascii_tokenizer(), length=8, bos_before="both")
    assert whole.ids[:6].tolist() == few.ids.tolist()
    origin = {tuple(row): min(of) for row, of in packed_naively(texts, 8)}
    begins = [origin[tuple(row)] for row in few.ids.tolist()]
    assert begins == list(range(6))


def test_nano_runs_on_too(monkeypatch):
    small_library(monkeypatch)
    plain, packed = (load("nano", ascii_tokenizer(), length=8, bos_before=where) for where in ("sequence", "both"))
    assert len(packed.ids) >= len(plain.ids)
    assert (packed.ids[:, 0] == 0).all() and (packed.ids[:, 1:] == 0).any() and not (plain.ids[:, 1:] == 0).any()


def test_a_boundary_is_needed():
    with pytest.raises(Exception, match="was to begin with a boundary token"):
        load(TEXTS, make_tokenizer(), length=4, bos_before="both")


def test_rows_that_share_a_document_directly_or_over_others_are_of_one():
    assert joined_by([("a",), ("b", "c"), ("d",), ("c", "e"), ("e",)]).tolist() == [0, 1, 2, 1, 1]
    assert joined_by([]).tolist() == []
