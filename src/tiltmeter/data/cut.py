"""How documents and stored rows are cut into sequences of one length, and where the boundary token stands.

Before each document: sequences are cut from one document after the other. Before each sequence: likewise, and all of
them begin with it. Before both: sequences run on over the ends of documents, as in SAELens, Gurnee 2024 and Lee &
Heimersheim 2024, and a boundary token stands wherever a sequence or a document begins.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Integer

from tiltmeter.data.boundary import Boundary
from tiltmeter.errors import TiltmeterError

BOS_BEFORE = ("document", "sequence", "both")
"""Where the boundary token goes: before each document of text, before each sequence, or before each of either."""

Ids = Int64[np.ndarray, " position"]


class Piece(NamedTuple):
    """One sequence, and the documents that it has tokens of: that in which it begins first."""

    ids: np.ndarray
    documents: tuple[Hashable, ...]


class Cut(NamedTuple):
    """How text and rows become sequences."""

    length: int
    """Tokens per sequence, including its boundary token."""
    document: list[int]
    """Tokens put before each document: the boundary token, or none."""
    sequence: list[int]
    """Tokens put before each sequence. With tokens before both, sequences run on over the ends of documents."""

    def pieces(
        self, documents: Iterable[tuple[Hashable, Int64[np.ndarray, " position"]]]
    ) -> Iterator[tuple[Hashable, list[Piece]]]:
        """The sequences of documents' tokens by the document in which they begin, in order.

        What is left over is dropped: at the end of each document or, where sequences run on, of the last one.
        """
        if not (self.document and self.sequence):
            yield from ((one, [Piece(ids, (one,)) for ids in self._of_document(ids)]) for one, ids in documents)
            return
        for document, found in groupby(self._running_on(documents), key=lambda piece: piece.documents[0]):
            yield document, list(found)

    def _of_document(self, ids: Ids) -> list[np.ndarray]:
        """Cut a document's tokens into consecutive sequences; the incomplete last one is dropped."""
        ids, own = _joined(self.document, ids), self.length - len(self.sequence)
        starts = range(0, len(ids) - own + 1, own) if own else ()
        return [_joined(self.sequence, ids[start : start + own]) for start in starts]

    def _running_on(self, documents: Iterable[tuple[Hashable, Ids]]) -> Iterator[Piece]:
        parts: list[np.ndarray] = []
        of: list[Hashable] = []
        if self.length <= len(self.sequence):
            return
        for document, ids in documents:
            rest = _joined(self.document, ids)
            while len(rest):
                taken, rest = np.split(rest, [self.length - sum(map(len, parts))])
                parts.append(taken)
                of.append(document)
                if sum(map(len, parts)) == self.length:
                    yield Piece(np.concatenate(parts), tuple(dict.fromkeys(of)))
                    parts, of = [], []
                    rest = _joined(self.sequence, rest) if len(rest) else rest

    def row(self, ids: Integer[np.ndarray, " position"]) -> Integer[np.ndarray, " cut"]:
        """The first tokens of a stored row, which may have its boundary token already."""
        begins = ids[: len(self.sequence)].tolist() == self.sequence
        return ids[: self.length] if begins else _joined(self.sequence, ids)[: self.length]


def _joined(begin: list[int], ids: Integer[np.ndarray, " position"]) -> Int64[np.ndarray, " joined"]:
    return np.concatenate([np.array(begin, dtype=np.int64), ids.astype(np.int64)])


def cut_of(boundary: Boundary, length: int, bos_before: str, name: str) -> Cut:
    """How to cut sequences of this length.

    Raises `TiltmeterError` if each should begin with a boundary token and none is known.
    """
    if bos_before == "document":
        return Cut(length, boundary.before, [])
    if not boundary.before:
        why = boundary.why.removeprefix("none: ")
        raise TiltmeterError(f"Each sequence of {name!r} was to begin with a boundary token, but {why}: leave it out.")
    return Cut(length, boundary.before if bos_before == "both" else [], boundary.before)
