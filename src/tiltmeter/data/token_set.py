"""Load token sequences: Python's own source code, a local file, a data set, or ids and texts in memory.

1. A name is resolved: `nano`, a file (`tiltmeter.data.files`), a folder saved by `datasets` or `owner/dataset`
   (`tiltmeter.data.hub`). An object is opened (`tiltmeter.data.memory`).
2. Its content is packed or cut into sequences of one length (`tiltmeter.data.packing`).
3. The sequences are checked against the model: vocabulary and context.

Every sequence has a document (`tiltmeter.data.documents`).
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Integer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.data.boundary import Boundary, boundary_of
from tiltmeter.data.cut import BOS_BEFORE, cut_of
from tiltmeter.data.documents import DOCUMENT, labelled, numbered
from tiltmeter.data.files import file_source, is_token_file
from tiltmeter.data.hub import HUB_NAME, hub_source, saved_source
from tiltmeter.data.memory import memory_source
from tiltmeter.data.nano_text import NANO, nano_sequences
from tiltmeter.data.packing import (
    Documents,
    Sequences,
    TokenRows,
    TokenSource,
    check_vocabulary,
    cut_rows,
    pack_documents,
    rows_of_stored_length,
)
from tiltmeter.data.padding import warn_of_padding
from tiltmeter.errors import TiltmeterError

MIN_UNIQUE_FRACTION = 0.9
"""Warn if the fraction of unique sequences is below this."""

_log = logging.getLogger(__name__)

TEXT_LENGTH = 128
"""Default tokens per sequence of text, if the context allows it."""


@dataclass(frozen=True)
class TokenSet:
    """Token sequences of one length, and where they came from."""

    ids: Int64[Tensor, "sequence position"]
    """On the CPU."""
    name: str
    """As given by the user."""
    boundary: int | None
    """Id of the token that begins a document (`boundary_of`); None if there is none."""
    facts: dict[str, str]
    """Provenance for the manifest, e.g. the interpreter's version, the data set's commit, the hash of a file."""
    documents: Int64[np.ndarray, " sequence"] | None = None
    """Which document each sequence is from: numbers, in the order in which documents are met. None where every
    sequence is a document of its own, also where that is what was given."""

    def __post_init__(self) -> None:
        """Refuse ids of another kind, which a caller may have at hand, and number the documents.

        Raises:
            TiltmeterError: the ids are no int64 tensor of two axes on the CPU, with at least one token, or there is
                not one document for each sequence.
        """
        ids: object = self.ids
        if not isinstance(ids, Tensor):
            raise TiltmeterError(f"{self.name} has its ids in a {type(ids).__name__}; give torch.tensor(ids).")
        if ids.ndim != 2 or not ids.numel():
            raise TiltmeterError(
                f"{self.name} has ids of shape {tuple(ids.shape)}; expected [sequence, position], with at least one of "
                "each."
            )
        if ids.dtype != torch.int64 or ids.device.type != "cpu":
            raise TiltmeterError(
                f"{self.name} has ids of {ids.dtype} on {ids.device}; expected torch.int64 on cpu: give "
                "ids.long().cpu()."
            )
        if self.documents is not None:
            object.__setattr__(self, "documents", self._numbered(np.asarray(self.documents)))

    def _numbered(self, documents: np.ndarray) -> Int64[np.ndarray, " sequence"] | None:
        if documents.shape != (len(self.ids),):
            raise TiltmeterError(
                f"{self.name} has {len(self.ids)} sequences and documents of shape {documents.shape}; give one "
                "document for each sequence."
            )
        numbers = numbered(documents.tolist())
        return numbers if numbers.max() + 1 < len(numbers) else None

    @property
    def document(self) -> Int64[np.ndarray, " sequence"]:
        """The number of each sequence's document."""
        return np.arange(len(self.ids)) if self.documents is None else self.documents

    def first(self, count: int) -> TokenSet:
        """The first sequences, at most so many."""
        documents = None if self.documents is None else self.documents[:count]
        return replace(self, ids=self.ids[:count], documents=documents)

    def sha256(self) -> str:
        """Hash of the shape and the ids, and of the documents where they have several sequences; hexadecimal digits."""
        digest = hashlib.sha256(repr(tuple(self.ids.shape)).encode())
        digest.update(self.ids.numpy().astype("<i8").tobytes())
        if self.documents is not None:
            digest.update(self.documents.astype("<i8").tobytes())
        return digest.hexdigest()


TokensGiven = Any
"""Tokens as `load_tokens` takes them: a name or path, or one of many kinds of objects."""

IN_MEMORY = "tokens in memory"
"""What results and messages call tokens in memory, unless they are given a name."""


def load_tokens(
    given: TokensGiven,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    vocabulary: int,
    context: int,
    at_most: int | None = None,
    length: int | None = None,
    column: str | None = None,
    revision: str | None = None,
    bos_before: str = "document",
    mask: Any = None,
    documents: Any = None,
    name: str | None = None,
    model_bos: int | None = None,
) -> TokenSet:
    """Load token sequences, at most `at_most` of them (None: all), by name or from memory.

    One sequence of each document comes first, then a second one of each, and so on; fewer sequences are the first of
    more. A text is a document, and a stored row is one of its own unless a column `document_id`, or `documents`, says
    otherwise.

    A name is `nano` (the held-out side of the running interpreter's standard library; `nano-train` is the side that
    nano was trained on, for training SAEs), a local file (`.npy`,
    `.safetensors`, `.parquet`, `.jsonl`, `.txt` and other text), a folder saved by `datasets`, or `owner/dataset` or
    `owner/dataset:split` on the Hugging Face hub, which is streamed: without `at_most`, to its end.

    In memory, ids are a tensor or NumPy array [sequence, position], or a list of lists; texts are a list of strings,
    one document each. A dict or `BatchEncoding` with `input_ids` (and `attention_mask`) is a table of rows, as is a
    `datasets.Dataset`. They give the same sequences as a file with the same content.

    `length` is in tokens. Stored sequences keep theirs unless it is given: then longer ones are cut to their first
    `length` tokens and shorter ones are dropped, and the facts say how many. Text is tokenised one document at a time,
    the boundary token first, and cut into sequences of `length` (default 128, or the context where that is less); the
    incomplete last piece of a document is dropped. `tokenizer` may be None if the ids are stored. Padding of stored
    sequences is left out where `attention_mask` is 0, which makes them shorter, and warned of where there is no mask.
    `mask` is the mask of ids in memory, shaped as they are: 1 or True at tokens, 0 at padding on either side.
    `documents` says of tokens in memory which document each row or text is from (an integer or text for each), or each
    token (integers [row, position]); rows that share a document are of one, directly or over others.

    `bos_before="sequence"` puts the boundary token before every sequence of that length instead, as SAELens does where
    `prepend_bos` is set: those of text, and stored ones that do not have it. With `"both"` it also stands where a
    document begins inside a sequence: sequences of text then run on over the ends of documents, as in Gurnee 2024.

    `model_bos` is the model's own `bos_token_id`; where the tokenizer has no bos, it helps to find the boundary token.

    `column` names a table's column or a file's tensor (default: the first of `tokens`, `input_ids`, `text`,
    `content`); `revision` a branch, tag or commit on the hub; `name` what results and messages call the tokens. Only
    the ids that are returned are checked.

    Raises `TiltmeterError` if the name is unknown, the object is no tokens, no complete sequence is left, or the ids do
    not fit the model's vocabulary (a size) or context (in tokens).
    """
    _check_numbers(at_most, length, context, bos_before)
    boundary = boundary_of(tokenizer, model_bos)
    name, source = _source(given, name, mask, column, revision)
    if documents is not None:
        source = _with_documents(source, given, documents, name)
    if source is None:
        pieces, of_each, facts = nano_sequences(
            given, tokenizer, boundary, length or min(context, TEXT_LENGTH), bos_before
        )
    else:
        pieces, of_each, facts = _sequences(source, tokenizer, boundary, length, context, at_most, bos_before)
        facts = {**source.facts, **facts}
    if not pieces:
        asked = f" of {length} tokens" if length else ""
        raise TiltmeterError(
            f"{name!r} holds no whole sequence{asked}: ask for a smaller length (--sequence-length), or give more text."
        )
    ids = np.stack(pieces[:at_most])
    check_vocabulary(ids, vocabulary, name)
    _warn_of_repeats(ids, name)
    if isinstance(source, TokenRows):
        warn_of_padding(ids, tokenizer, name)
    facts = {**facts, "boundary": boundary.why}
    return TokenSet(torch.from_numpy(ids.astype(np.int64)), name, boundary.token, facts, of_each[:at_most])


def _with_documents(source: TokenSource | None, given: TokensGiven, documents: Any, name: str) -> TokenSource:
    if source is None or isinstance(given, str | os.PathLike):
        raise TiltmeterError(
            f"Documents were given with {name!r}, which is a name: store a column {DOCUMENT} beside the tokens, or "
            "give the tokens themselves."
        )
    if isinstance(documents, Tensor):
        documents = documents.detach().cpu().numpy()
    if isinstance(source, Documents):
        return replace(source, texts=labelled(source.texts, documents, name))
    return replace(source, rows=labelled(source.rows, documents, name))


def _source(
    given: TokensGiven, name: str | None, mask: Any, column: str | None, revision: str | None
) -> tuple[str, TokenSource | None]:
    """What messages call the tokens, and where they are read from; None for nano's text."""
    if not isinstance(given, str | os.PathLike):
        _refuse_revision(name or IN_MEMORY, revision)
        return name or IN_MEMORY, memory_source(name or IN_MEMORY, given, mask, column)
    where = os.fspath(given)
    if mask is not None:
        raise TiltmeterError(
            f"A mask was given with {where!r}, which is a name: store a column attention_mask beside its ids, or give "
            "the ids themselves."
        )
    if where in NANO:
        _refuse_column(where, column)
        _refuse_revision(where, revision)
        return name or where, None
    return name or where, _resolve(where, column, revision)


def _warn_of_repeats(ids: Integer[np.ndarray, "sequence position"], name: str) -> None:
    different = len(np.unique(ids, axis=0))
    if different < MIN_UNIQUE_FRACTION * len(ids):
        _log.warning(
            "Of the %d sequences of %s only %d are distinct; intervals assume independent sequences, and will be too "
            "narrow.",
            len(ids),
            name,
            different,
        )


def _check_numbers(at_most: int | None, length: int | None, context: int, bos_before: str) -> None:
    if bos_before not in BOS_BEFORE:
        raise TiltmeterError(
            f"The boundary token was to stand before each {bos_before!r}; choose {', '.join(BOS_BEFORE)}."
        )
    if at_most is not None and at_most < 1:
        raise TiltmeterError(f"The number of sequences is {at_most}, expected at least 1.")
    if length is not None and not 1 <= length <= context:
        raise TiltmeterError(
            f"The length of a sequence is {length} tokens, expected 1 to {context}, which is the model's context."
        )


def _resolve(name: str, column: str | None, revision: str | None) -> TokenSource:
    path = Path(name)
    try:
        exists = path.exists()
    except OSError as error:
        raise TiltmeterError(f"{name!r} could not be looked up ({error.strerror}): check the path.") from error
    if not exists and not is_token_file(path) and HUB_NAME.fullmatch(name):
        return hub_source(name, column, revision)
    _refuse_revision(name, revision)
    if path.is_dir():
        return saved_source(name, path, column)
    if exists or is_token_file(path):
        return file_source(name, path, column)
    raise TiltmeterError(
        f"There are no tokens {name!r}: give 'nano', the path of a file, a data set as 'owner/dataset:split', or in "
        "Python a list of texts ([text])."
    )


def _refuse_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise TiltmeterError(
            f"The revision {revision!r} was asked for but {name!r} is not a data set on the hub: leave it out."
        )


def _refuse_column(name: str, column: str | None) -> None:
    if column is not None:
        raise TiltmeterError(f"{name!r} has no columns, but the column {column!r} was asked for: leave it out.")


def _sequences(
    source: TokenSource,
    tokenizer: PreTrainedTokenizerBase | None,
    boundary: Boundary,
    length: int | None,
    context: int,
    limit: int | None,
    bos_before: str,
) -> Sequences:
    if isinstance(source, Documents):
        cut = cut_of(boundary, length or min(context, TEXT_LENGTH), bos_before, source.name)
        return pack_documents(source, tokenizer, cut, limit)
    if length is None:
        source, length = rows_of_stored_length(source, context)
    return cut_rows(source, cut_of(boundary, length, bos_before, source.name), limit)
