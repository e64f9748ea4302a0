"""Make sequences of one length from documents or from stored token ids.

1. A `TokenSource` is what a name resolves to: documents to be tokenised, or rows of stored token ids.
2. `pack_documents` tokenises documents and cuts them into complete sequences (`tiltmeter.data.cut`). Unless sequences
   are asked to run on, the rest of a document is dropped, so that no sequence spans two.
3. `cut_rows` takes the first tokens of every stored row and drops rows that are too short.

Both take one sequence of each document first (`tiltmeter.data.documents`), and stop reading once they have as many
documents as sequences are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64, Integer
from transformers import PreTrainedTokenizerBase

from tiltmeter.data.cut import Cut, Piece
from tiltmeter.data.documents import Labelled, Shelves, joined_by, scattered
from tiltmeter.data.padding import MASK, MaskedRow, unpadded
from tiltmeter.errors import TiltmeterError

BATCH = 64
"""Documents tokenised at once."""

MASKED = {"mask": f"{MASK}: positions where it is 0 were left out"}
"""The fact that rows were read by their mask."""

T = TypeVar("T")


@dataclass(frozen=True)
class Documents:
    """Documents to be tokenised one by one, not yet validated."""

    name: str
    """As given by the user."""
    texts: Iterable[object]
    """Of texts, or of `Labelled` ones: parts of documents."""
    facts: dict[str, str]


@dataclass(frozen=True)
class TokenRows:
    """Stored token ids, one list or array per sequence, not yet validated."""

    name: str
    """As given by the user."""
    rows: Iterable[object]
    """Of ids or `MaskedRow`, each perhaps `Labelled`."""
    facts: dict[str, str]


TokenSource = Documents | TokenRows


class Row(NamedTuple):
    """A stored row's tokens and its document; None where the row is one of its own."""

    ids: Integer[np.ndarray, " position"]
    document: Hashable | None


class Sequences(NamedTuple):
    """Sequences of one length, each `Int64[ndarray, "position"]`, and counts of what was left out."""

    pieces: list[np.ndarray]
    documents: Int64[np.ndarray, " sequence"]
    """The number of each one's document."""
    facts: dict[str, str]


def encode(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Int64[np.ndarray, " position"]]:
    """Yield the token ids of each text, without a boundary token."""
    texts = iter(texts)
    while batch := list(islice(texts, BATCH)):
        # `verbose` would warn that a document is longer than the model's context; it is cut afterwards
        encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)
        for ids in encoded["input_ids"]:
            yield np.array(ids, dtype=np.int64)


def pack_documents(
    source: Documents, tokenizer: PreTrainedTokenizerBase | None, cut: Cut, limit: int | None
) -> Sequences:
    """Tokenise documents into `limit` sequences (None: all), one of each document first, in the documents' order.

    Texts that are equal are one document. A sequence that runs on is one of the document in which it begins, and
    sequences that share a document, directly or over others, are of one for intervals.

    Raises `TiltmeterError` if there is no tokenizer, or where something among the documents is not text.
    """
    if tokenizer is None:
        raise TiltmeterError(
            f"{source.name!r} is text and there is no tokenizer to read it with: "
            "give a model that has one, or tokens that are stored as ids."
        )
    shelves: Shelves[Piece] = Shelves()
    read = count()
    used = 0
    for document, found in cut.pieces(_counted(_encoded(_only_text(source), tokenizer), read)):
        shelves.add(document, scattered(f"{document}", found))
        used += bool(found)
        if limit is not None and len(shelves) >= limit:
            break
    seen = next(read)
    facts = {"documents_read": str(seen), "documents_too_short": str(seen - used)}
    return Sequences(*unlabelled(shelves, limit), facts)


def unlabelled(shelves: Shelves[Piece], limit: int | None) -> tuple[list[np.ndarray], Int64[np.ndarray, " sequence"]]:
    """The first sequences (None: all), and the number of each one's document, shared ones joined."""
    pieces, _ = shelves.taken(limit)
    return [piece.ids for piece in pieces], joined_by([piece.documents for piece in pieces])


def _counted(items: Iterable[T], counter: Iterator[int]) -> Iterator[T]:
    """The items, each of which advances the counter."""
    for item in items:
        next(counter)
        yield item


def _encoded(
    texts: Iterator[tuple[Hashable, str]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[Hashable, Int64[np.ndarray, " position"]]]:
    """The token ids of each text, with its document."""
    while batch := list(islice(texts, BATCH)):
        ids = encode((text for _, text in batch), tokenizer)
        yield from zip((document for document, _ in batch), ids, strict=True)


def _only_text(source: Documents) -> Iterator[tuple[Hashable, str]]:
    """Every text, with its document: the label that it has, or a hash of the text."""
    for index, one in enumerate(source.texts):
        document, text = (one.document, one.content) if isinstance(one, Labelled) else (None, one)
        if not isinstance(text, str):
            raise TiltmeterError(
                f"Document {index} of {source.name!r} is of type {type(text).__name__}, expected text: "
                "remove that row or name another column."
            )
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            raise TiltmeterError(
                f"Document {index} of {source.name!r} has half a character at {error.start} (a surrogate without its "
                "other half): mend or remove that row."
            ) from None
        yield hashlib.sha256(content).hexdigest() if document is None else document, text


def cut_rows(source: TokenRows, cut: Cut, limit: int | None) -> Sequences:
    """Take the first tokens of `limit` rows (None: all) that are long enough, one of each document first.

    Raises `TiltmeterError` if a row is not a list of integers.
    """
    shelves: Shelves[np.ndarray] = Shelves()
    read = shorter = longer = 0
    for document, rows in _runs(checked_rows(source)):
        pieces = []
        for ids in rows:
            row = cut.row(ids)
            read += 1
            shorter += len(row) < cut.length
            longer += len(ids) > cut.length
            if len(row) == cut.length:
                pieces.append(row)
        shelves.add(document, scattered(f"{document}", pieces))
        if limit is not None and len(shelves) >= limit:
            break
    counts = {"rows_read": read, "rows_dropped_as_shorter": shorter, "rows_cut_as_longer": longer}
    return Sequences(*shelves.taken(limit), {what: str(count) for what, count in counts.items()})


def _runs(rows: Iterable[Row]) -> Iterator[tuple[Hashable, list[np.ndarray]]]:
    """Rows that follow each other and are from one document, which is read to its end; other rows one by one."""
    held: list[np.ndarray] = []
    last: Hashable = None
    for number, (ids, document) in enumerate(rows):
        if held and document != last:
            yield last, held
            held = []
        if document is None:
            yield ("row", number), [ids]
        else:
            held.append(ids)
            last = document
    if held:
        yield last, held


def rows_of_stored_length(source: TokenRows, context: int) -> tuple[TokenRows, int]:
    """Return the same rows and their length in tokens, which must be equal for all and fit the context.

    Only the first row is read now; another length further on raises `TiltmeterError` when it is reached.
    """
    first, rows = peek(checked_rows(source), source.name)
    length = len(first.ids)
    if length > context:
        raise TiltmeterError(
            f"The sequences of {source.name!r} have {length} tokens but the model's context is {context}: "
            f"give a length of at most {context} to use the first tokens of each."
        )
    return TokenRows(source.name, _of_length(rows, length, source.name), source.facts), length


def _of_length(rows: Iterable[Row], length: int, name: str) -> Iterator[Labelled]:
    for index, row in enumerate(rows):
        if len(row.ids) != length or length == 0:
            wrong = f"differ in length (sequence 0 has {length} tokens, sequence {index} has {len(row.ids)})"
            raise TiltmeterError(
                f"The sequences of {name!r} {wrong if length else 'begin with an empty one'}: give a length, and "
                "longer ones are cut and shorter ones dropped."
            )
        yield Labelled(*row)


def checked_rows(source: TokenRows) -> Iterator[Row]:
    """Yield every row's tokens, one-dimensional integers without padding that a mask marks, and its document.

    Raises a `TiltmeterError` that names the row if it is anything else.
    """
    for index, one in enumerate(source.rows):
        row, document = one if isinstance(one, Labelled) else (one, None)
        where = f"Sequence {index} of {source.name!r}"
        try:
            ids = np.asarray(row.ids if isinstance(row, MaskedRow) else row)
        except ValueError as error:
            raise TiltmeterError(f"{where} is a ragged list of lists, expected one list of token ids.") from error
        if isinstance(row, list) and any(isinstance(one, bool) for one in row):
            raise TiltmeterError(f"{where} holds true or false; expected integer token ids: store it as integers.")
        if ids.shape == (0,):
            ids = ids.astype(np.int64)  # NumPy makes an empty list a float array
        check_integers(ids, where)
        if ids.ndim != 1:
            raise TiltmeterError(
                f"{where} has {ids.ndim} dimensions, expected one list of token ids: store one sequence a row."
            )
        yield Row(unpadded(ids, row.mask, where) if isinstance(row, MaskedRow) else ids, document)


def check_integers(ids: np.ndarray, where: str) -> None:
    """Raise `TiltmeterError` unless the array holds integers; `where` begins the sentence."""
    if ids.dtype.kind in "iu":
        return
    what = "floating-point numbers" if ids.dtype.kind == "f" else f"{ids.dtype} values"
    nan = ", NaN among them" if ids.dtype.kind == "f" and np.isnan(ids).any() else ""
    raise TiltmeterError(f"{where} holds {what}{nan}; expected integer token ids: store it as integers.")


def matrix_rows(name: str, array: np.ndarray, facts: dict[str, str]) -> TokenRows:
    """The rows of an array of ids [sequence, position].

    Raises `TiltmeterError` if it is no such array.
    """
    check_integers(array, repr(name))
    if array.ndim != 2:
        raise TiltmeterError(
            f"The array of {name!r} has shape {array.shape}, expected two dimensions [sequence, position]: reshape it."
        )
    return TokenRows(name, array, facts)


def check_vocabulary(ids: Integer[np.ndarray, "sequence position"], vocabulary: int, name: str) -> None:
    """Raise `TiltmeterError` unless every id is at least 0 and below the size of the vocabulary."""
    least, largest = int(ids.min()), int(ids.max())
    if least < 0:
        raise TiltmeterError(
            f"The token ids of {name!r} go down to {least}, expected 0 to {vocabulary - 1}: "
            "cut padding such as -100 away first."
        )
    if largest >= vocabulary:
        raise TiltmeterError(
            f"The token ids of {name!r} go up to {largest} but the model's vocabulary has {vocabulary} tokens: "
            "use tokens made by this model's tokenizer."
        )


def peek(items: Iterable[T], name: str) -> tuple[T, Iterator[T]]:
    """Return the first item, and an iterator over all of them, the first included."""
    items = iter(items)
    for first in items:
        return first, chain([first], items)
    raise TiltmeterError(f"{name!r} holds no sequences: it is empty; give one with at least one row.")
