"""What the tests of token sequences share.

The tokenizer gives a printable character its ASCII code and begins a document with 0, so that expected ids can be
written down by hand.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiltmeter.data import stdlib
from tiltmeter.data.token_set import load_tokens
from tiltmeter.errors import TiltmeterError

VOCABULARY = 300
CONTEXT = 16
IDS = np.arange(30).reshape(5, 6)


def make_tokenizer(**special):
    letters = {chr(code): code for code in range(33, 127)}
    others = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(letters))
    vocabulary = {"<|endoftext|>": 0, **letters, **{c: 127 + i for i, c in enumerate(others)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **special)


def ascii_tokenizer():
    return make_tokenizer(bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def load(given, tokenizer=None, vocabulary=VOCABULARY, context=CONTEXT, **options):
    return load_tokens(given, tokenizer=tokenizer, vocabulary=vocabulary, context=context, **options)


def write_jsonl(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def ascii_ids(text):
    return [ord(character) for character in text]


def stored(folder, kind):
    """`IDS` in a file of each kind."""
    path = folder / f"ids.{kind}"
    if kind == "npy":
        np.save(path, IDS.astype(">u2"))
    elif kind == "safetensors":
        save_file({"whatever": IDS.astype(np.int32)}, path)
    elif kind == "parquet":
        pq.write_table(pa.table({"id": list(range(5)), "input_ids": IDS.tolist()}), path, row_group_size=2)
    elif kind == "jsonl":
        write_jsonl(path, *({"tokens": row} for row in IDS.tolist()))
        path.write_text(path.read_text() + "\n")
    else:
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_dict({"tokens": IDS.tolist()}).with_format("pandas").save_to_disk(path)
    return path


MODULES = {f"module{i}.part": chr(97 + i) * (30 + 40 * i) for i in range(8)}


def small_library(monkeypatch):
    """Put a small library in place of Python's; tests change what it holds."""
    library = dict(MODULES)
    monkeypatch.setattr(stdlib, "texts", lambda which: iter(sorted(library.items())) if which == "held-out" else None)
    return library


def assert_sentence(match, given, tokenizer=None, **options):
    """Check that the input is refused in one sentence."""
    with pytest.raises(TiltmeterError, match=match) as caught:
        load(given, tokenizer, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message
