"""Which document each sequence is from, and in which order the sequences of many documents are taken.

Sequences of one document are alike, so intervals count documents. So that few sequences are from as many documents as
there are, one sequence of each document comes first, then a second one of each, and so on. Documents keep the order in
which they are read. Which of its sequences a document gives first is decided by a hash of the document and of where
the sequence is in it, so that not all are beginnings.

The order depends on the text alone: the first 64 of 192 sequences are those that are taken where 64 are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence, Sized
from itertools import pairwise
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64, Integer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tiltmeter.errors import TiltmeterError

DOCUMENT = "document_id"
"""The column, or tensor, that says which document a row is from."""


class Labelled(NamedTuple):
    """A text or a stored row, and the document that it is from."""

    content: object
    document: Hashable | None
    """None where it is a document of its own."""


T = TypeVar("T")


class Shelves(Generic[T]):
    """Sequences by document, in the order in which documents were first met."""

    def __init__(self) -> None:
        self._of: dict[Hashable, list[T]] = {}

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self._of)

    def add(self, document: Hashable, pieces: Sequence[T]) -> None:
        """Add sequences of a document, in the order in which they should be taken."""
        if len(pieces):
            self._of.setdefault(document, []).extend(pieces)

    def taken(self, limit: int | None) -> tuple[list[T], Int64[np.ndarray, " sequence"]]:
        """The first sequences (None: all) and the number of each one's document: one of each, then the second ones."""
        rounds = (
            (turn, number, piece)
            for number, pieces in enumerate(self._of.values())
            for turn, piece in enumerate(pieces[:limit])
        )
        chosen = sorted(rounds, key=itemgetter(0, 1))[:limit]
        return [piece for _, _, piece in chosen], np.array([number for _, number, _ in chosen], np.int64)


def scattered(address: str, pieces: Sequence[T]) -> list[T]:
    """The sequences of a document in an order that is random but depends on nothing else than its address."""
    if len(pieces) < 2:
        return list(pieces)
    keys = [hashlib.sha256(f"{address}/{index}".encode()).digest() for index in range(len(pieces))]
    return [pieces[index] for index in sorted(range(len(pieces)), key=keys.__getitem__)]


def numbered(documents: Iterable[Hashable]) -> Int64[np.ndarray, " sequence"]:
    """Number documents in the order in which they are first met."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in documents], np.int64)


def labelled(items: Iterable[object], documents: object, name: str) -> Iterator[Labelled]:
    """Pair texts or rows with the documents that the user says they are from.

    Args:
        items: texts or rows.
        documents: an integer or text for each, or integers [row, position], one for each token: rows that share a
            document are then of one, directly or over others.
        name: in messages.

    Raises:
        TiltmeterError: there are not as many documents as items, or they are no integers or texts.
    """
    of_each = _of_rows(documents, name)
    if isinstance(items, Sized) and len(items) != len(of_each):
        raise _miscounted(len(items), len(of_each), name)
    return _paired(items, of_each, name)


def _paired(items: Iterable[object], documents: list[Hashable], name: str) -> Iterator[Labelled]:
    """Pairs of both; a stream is found to be of another length where it ends."""
    count = 0
    for item in items:
        if count < len(documents):
            yield Labelled(item, documents[count])
        count += 1
    if count != len(documents):
        raise _miscounted(count, len(documents), name)


def _miscounted(items: int, documents: int, name: str) -> TiltmeterError:
    return TiltmeterError(
        f"{name!r} has {items} rows, but documents were given for {documents}; give one for each row."
    )


def checked_document(found: object, name: str) -> Hashable:
    """What a table says of a row's document.

    Raises:
        TiltmeterError: it is no integer and no text.
    """
    if isinstance(found, bool) or not isinstance(found, int | str | np.integer):
        raise TiltmeterError(
            f"{name!r} has a {DOCUMENT} of type {type(found).__name__}; give an integer or a text for each row."
        )
    return found if isinstance(found, str) else int(found)


def _of_rows(documents: object, name: str) -> list[Hashable]:
    try:
        found = np.asarray(documents)
    except ValueError:  # ragged
        found = np.zeros(())
    if found.ndim == 2 and found.dtype.kind in "iu":
        return [int(one) for one in connected(found)]
    if found.ndim != 1 or found.dtype.kind not in "iuUO":
        raise TiltmeterError(
            f"The documents of {name!r} are not one integer or text for each row, or integers [row, position]; give "
            "documents=[0, 0, 1, ...]."
        )
    return [checked_document(one, name) for one in found.tolist()]


def joined_by(documents: Sequence[Sequence[Hashable]]) -> Int64[np.ndarray, " row"]:
    """Number the groups of rows that share documents, in the order in which they are met; each row has at least one."""
    names = numbered(one for row in documents for one in row)
    widest, starts = max(map(len, documents), default=0), np.cumsum([0, *map(len, documents)])
    filled = [np.resize(names[start:end], widest) for start, end in pairwise(starts)]
    return numbered(connected(np.array(filled)).tolist()) if filled else np.zeros(0, np.int64)


def connected(documents: Integer[np.ndarray, "row position"]) -> Integer[np.ndarray, " row"]:
    """Number the groups of rows that share documents, directly or over other rows (connected components)."""
    rows = np.repeat(np.arange(len(documents)), documents.shape[1])
    names, which = np.unique(documents, return_inverse=True)
    size = len(documents) + len(names)
    links = coo_array((np.ones(documents.size), (rows, len(documents) + which.ravel())), (size, size))
    groups = connected_components(links, directed=False)[1]
    return np.asarray(groups[: len(documents)])
