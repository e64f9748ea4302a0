"""Tables of token ids or texts, from files, data sets and memory: which column holds them, and what is beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tiltmeter.data.documents import DOCUMENT, Labelled, checked_document
from tiltmeter.data.packing import MASKED, Documents, TokenRows, TokenSource, peek
from tiltmeter.data.padding import MASK, MaskedRow
from tiltmeter.errors import TiltmeterError

TOKEN_COLUMNS = ("tokens", "input_ids")
"""Columns of token ids, in order of preference: TransformerLens's name, then that of `datasets`."""

TEXT_COLUMNS = ("text", "content")
"""Columns of text, used if there are no token ids."""


def table_source(
    name: str,
    columns: Sequence[str],
    column: str | None,
    read: Callable[[Sequence[str]], Iterable[Sequence[object]]],
    facts: dict[str, str],
) -> TokenSource:
    """Open a table's column as documents or rows, by what its first value is; `read` returns each row's values.

    A column `attention_mask` beside token ids is their mask, and a column `document_id` says which document each row
    is from.

    Raises `TiltmeterError` if neither the column asked for nor a default one exists, or it is empty.
    """
    chosen = choose_column(name, columns, column)
    beside = [one for one in (MASK, DOCUMENT) if one in columns and one != chosen]
    first, rows = peek(read([chosen, *beside]), name)
    facts = {**facts, "column": chosen}
    if isinstance(first[0], str):
        return Documents(name, (_labelled(row[0], row, beside, name) for row in rows), facts)
    if MASK in beside:
        masked = (_labelled(MaskedRow(row[0], row[1]), row, beside, name) for row in rows)
        return TokenRows(name, masked, {**facts, **MASKED})
    return TokenRows(name, (_labelled(row[0], row, beside, name) for row in rows), facts)


def _labelled(content: object, row: Sequence[object], beside: Sequence[str], name: str) -> object:
    """The content of a table's row, with its document where the table says which it is."""
    return Labelled(content, checked_document(row[-1], name)) if DOCUMENT in beside else content


def choose_column(name: str, columns: Sequence[str], column: str | None) -> str:
    """Return the column asked for, else the first of `TOKEN_COLUMNS` and `TEXT_COLUMNS` that the table has."""
    wanted = (*TOKEN_COLUMNS, *TEXT_COLUMNS) if column is None else (column,)
    for candidate in wanted:
        if candidate in columns:
            return candidate
    raise TiltmeterError(
        f"{name!r} has no column {' or '.join(map(repr, wanted))}: "
        f"name one of those it has ({', '.join(map(repr, columns)) or 'none'})."
    )
