"""Token sequences from Python objects: ids as tensors, arrays and lists, texts, tables and data sets.

| object | content |
|---|---|
| tensor, NumPy array | ids [sequence, position] |
| list of lists, tensors or arrays of ids | one sequence each |
| list of strings | one document of text each |
| dict, `BatchEncoding` | columns: ids (`input_ids`, `attention_mask`) or text |
| `datasets.Dataset`, `IterableDataset` | the same |

They are read as the same content in a file is (`files`). Nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tiltmeter.data.hub import dataset_source
from tiltmeter.data.packing import MASKED, Documents, TokenRows, TokenSource, matrix_rows
from tiltmeter.data.padding import MASK, check_mask_shape, masked_rows
from tiltmeter.data.tables import table_source
from tiltmeter.errors import TiltmeterError

KINDS = (
    "a name, a tensor or array of ids [sequence, position], a list of lists of ids or of strings, a dict with "
    "input_ids, or a datasets.Dataset"
)
"""What tokens may be, for messages."""


def memory_source(name: str, given: object, mask: object, column: str | None) -> TokenSource:
    """Open tokens that are given as an object; `name` is what messages call them.

    Args:
        name: in messages and results.
        given: as in the table above.
        mask: 1 or True where a position is a token, and 0 at padding, shaped as the ids; None if there is none.
        column: of a dict or data set; default as for files.

    Raises:
        TiltmeterError: it is none of these; or a column or mask was given where it makes no sense.
    """
    facts = {"in_memory": type(given).__name__}
    if _is_dataset(given):
        _refuse_mask(name, mask, f"a column {MASK} beside the ids says what is padding")
        return dataset_source(name, given, column, facts)
    if isinstance(given, Mapping):
        return _table(name, given, mask, column, facts)
    if column is not None:
        raise TiltmeterError(f"{name!r} has no columns, but the column {column!r} was asked for: leave it out.")
    if isinstance(given, Tensor | np.ndarray):
        return _matrix(name, given, mask, facts)
    if isinstance(given, list | tuple):
        return _list(name, given, mask, facts)
    raise TiltmeterError(f"{name!r} is a {type(given).__name__}; expected {KINDS}.")


def _is_dataset(given: object) -> bool:
    """Whether it is a data set of `datasets`, which is not imported. One with several splits is refused."""
    kinds = {kind.__name__ for kind in type(given).__mro__ if kind.__module__.partition(".")[0] == "datasets"}
    if several := kinds & {"DatasetDict", "IterableDatasetDict"}:
        splits = ", ".join(map(repr, given)) if isinstance(given, Mapping) else ""
        raise TiltmeterError(f"The tokens are a {several.pop()}; give one of its splits ({splits}).")
    return bool(kinds & {"Dataset", "IterableDataset"})


def _table(name: str, given: Mapping, mask: object, column: str | None, facts: dict[str, str]) -> TokenSource:
    columns = dict(given)
    if mask is not None:
        if MASK in columns:
            _refuse_mask(name, mask, f"it has a {MASK} of its own")
        columns[MASK] = mask

    def read(chosen: Sequence[str]) -> Iterator[Sequence[object]]:
        found = [_rows(name, columns[one]) for one in chosen]
        if len({len(one) for one in found}) > 1:
            counts = ", ".join(f"{len(rows)} in {key}" for key, rows in zip(chosen, found, strict=True))
            raise TiltmeterError(
                f"{name!r} has columns of different lengths ({counts}); give each row one entry in each."
            )
        return zip(*found, strict=True)

    return table_source(name, [str(key) for key in columns], column, read, facts)


def _rows(name: str, column: object) -> Sequence | np.ndarray:
    if isinstance(column, Tensor | np.ndarray):
        array = _array(name, column)
        if array.ndim == 0:
            raise TiltmeterError(f"{name!r} has a single number where a column was expected; give one row each.")
        return array
    if isinstance(column, list | tuple):
        return [_array(name, row) if isinstance(row, Tensor) else row for row in column]
    raise TiltmeterError(
        f"{name!r} has a column of type {type(column).__name__}; expected a tensor, an array or a list."
    )


def _matrix(name: str, given: Tensor | np.ndarray, mask: object, facts: dict[str, str]) -> TokenRows:
    array = _array(name, given)
    if array.ndim == 1:
        raise TiltmeterError(
            f"{name!r} is one-dimensional ({len(array)} ids), expected [sequence, position]: give ids[None] for a "
            "single sequence."
        )
    rows = matrix_rows(name, array, facts)
    return rows if mask is None else _masked(rows, array.shape, mask)


def _masked(rows: TokenRows, shape: tuple[int, ...], mask: object) -> TokenRows:
    found = _array(rows.name, mask) if isinstance(mask, Tensor | np.ndarray) else _as_array(mask)
    check_mask_shape(found.shape, shape, rows.name)
    return TokenRows(rows.name, masked_rows(rows.rows, found), {**rows.facts, **MASKED})


def _list(name: str, given: Sequence, mask: object, facts: dict[str, str]) -> TokenSource:
    if given and isinstance(given[0], str):
        _refuse_mask(name, mask, "text has no padding")
        return Documents(name, given, facts)
    if given and isinstance(given[0], int | np.integer):
        raise TiltmeterError(f"{name!r} is one list of ids, expected one for each sequence: give [ids].")
    if mask is None:
        return TokenRows(name, _rows(name, given), facts)
    return _table(name, {"input_ids": given, MASK: mask}, None, None, facts)


def _array(name: str, given: Any) -> np.ndarray:
    """The same numbers on the CPU, as NumPy has them."""
    if isinstance(given, np.ma.MaskedArray):
        raise TiltmeterError(f"{name!r} is a masked array; give its data, and mask=~ids.mask.")
    if isinstance(given, np.ndarray):
        return given
    try:
        plain = given.detach().cpu()
        return (plain.float() if plain.is_floating_point() else plain).numpy()  # NumPy has no bfloat16
    except (RuntimeError, NotImplementedError, TypeError) as error:  # sparse, nested, on meta
        reason = str(error).partition("\n")[0].rstrip(".")
        raise TiltmeterError(
            f"{name!r} is a tensor that holds no plain numbers ({reason}); give ids as int64."
        ) from None


def _as_array(mask: object) -> np.ndarray:
    try:
        return np.asarray(mask)
    except ValueError:  # a ragged list of lists
        return np.zeros(0)


def _refuse_mask(name: str, mask: object, why: str) -> None:
    if mask is not None:
        raise TiltmeterError(f"A mask was given with {name!r}, but {why}: leave it out.")
