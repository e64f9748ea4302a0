"""Token sequences from local files, read by suffix.

| suffix | content |
|---|---|
| `.npy` | one integer array [sequence, position] |
| `.safetensors` | one integer tensor [sequence, position] |
| `.parquet`, `.jsonl` | a column of lists of token ids, or else a column of text |
| `.txt`, `.md`, `.rst`, `.py`, `.tex` | one document of text |

A column or tensor `attention_mask` beside token ids says which of them are padding, and `document_id` which document
each row is from.
Pickles are refused: loading one can run arbitrary code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tiltmeter.data.documents import DOCUMENT, labelled
from tiltmeter.data.packing import MASKED, Documents, TokenRows, TokenSource, matrix_rows
from tiltmeter.data.padding import MASK, check_mask_shape, masked_rows
from tiltmeter.data.tables import table_source
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.extras import require

PICKLES = frozenset({".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib"})
"""Suffixes of files that are pickles, or may be."""


def file_source(name: str, path: Path, column: str | None) -> TokenSource:
    """Open a local file; `name` is its path as the user wrote it.

    `column` names a column (`.parquet`, `.jsonl`) or a tensor (`.safetensors`); other files have none.
    Raises `TiltmeterError` if the file is absent, empty, a pickle, damaged or of an unknown type.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise TiltmeterError(
            f"{name!r} is a pickle by its suffix, and loading one can run code: "
            "save the token ids as .safetensors or .npy."
        )
    if not path.is_file():
        raise TiltmeterError(f"There is no token file {name!r}: check the path.")
    if suffix not in READERS:
        raise TiltmeterError(f"{name!r} is of an unknown kind, expected one of {', '.join(READERS)}: convert it.")
    try:
        if path.stat().st_size == 0:
            raise TiltmeterError(f"{name!r} is an empty file: give one with at least one sequence.")
        with path.open("rb") as file:
            facts = {"file_sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        return READERS[suffix](name, path, column, facts)
    except (OSError, SafetensorError) as error:
        raise _unreadable(name, error) from error


def is_token_file(path: Path) -> bool:
    """Whether the suffix is that of a token file, a text file or a pickle."""
    return path.suffix.lower() in {*READERS, *PICKLES}


def _npy(name: str, path: Path, column: str | None, facts: dict[str, str]) -> TokenRows:
    _refuse_column(name, column)
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # never unpickles: refuses object arrays
    except ValueError as error:
        raise TiltmeterError(
            f"{name!r} is not a plain NumPy array ({error}), and pickled objects are never loaded: "
            "save an integer array [sequence, position] with numpy.save."
        ) from error
    return matrix_rows(name, array, facts)


def _safetensors(name: str, path: Path, column: str | None, facts: dict[str, str]) -> TokenRows:
    with safe_open(path, framework="pt") as file:
        tensors = list(file.keys())
        if column is None and len(tensors) > 1:
            slices = {key: file.get_slice(key) for key in tensors if key not in (MASK, DOCUMENT)}
            tensors = [k for k, s in slices.items() if len(s.get_shape()) == 2 and s.get_dtype()[0] in "IU"]
        chosen = [key for key in tensors if column in (None, key)]
        if len(chosen) != 1:
            looked_for = "one integer tensor [sequence, position]" if column is None else f"a tensor {column!r}"
            raise TiltmeterError(
                f"{name!r} does not hold {looked_for}: "
                f"name one of its tensors as the column ({', '.join(map(repr, file.keys())) or 'it has none'})."
            )
        tensor = file.get_tensor(chosen[0])
        beside = {key: file.get_tensor(key) for key in (MASK, DOCUMENT) if key in set(file.keys()) - set(chosen)}
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    rows = matrix_rows(name, tensor.numpy(), {**facts, "column": chosen[0]})
    if MASK in beside:
        rows = _masked(rows, tensor.shape, beside[MASK])
    return replace(rows, rows=labelled(rows.rows, beside[DOCUMENT].numpy(), name)) if DOCUMENT in beside else rows


def _masked(rows: TokenRows, shape: torch.Size, mask: Tensor) -> TokenRows:
    check_mask_shape(mask.shape, shape, rows.name)
    return TokenRows(rows.name, masked_rows(rows.rows, mask.float().numpy()), {**rows.facts, **MASKED})


def _parquet(name: str, path: Path, column: str | None, facts: dict[str, str]) -> TokenSource:
    pq = require("pyarrow.parquet", "parquet", f"{name!r}, a .parquet file,")

    def read(chosen: Sequence[str]) -> Iterator[Sequence[object]]:
        try:
            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(batch_size=1024, columns=list(chosen)):
                    yield from zip(*(batch.column(one).to_pylist() for one in chosen), strict=True)
        except (OSError, ValueError, KeyError) as error:  # KeyError: two columns of one name
            raise _unreadable(name, error) from error

    try:
        columns = pq.read_schema(path).names
    except ValueError as error:
        raise _unreadable(name, error) from error
    return table_source(name, columns, column, read, facts)


def _jsonl(name: str, path: Path, column: str | None, facts: dict[str, str]) -> TokenSource:
    def read(chosen: Sequence[str]) -> Iterator[Sequence[object]]:
        for number, record in _json_records(name, path):
            if absent := [one for one in chosen if one not in record]:
                raise TiltmeterError(
                    f"Line {number} of {name!r} has no column {absent[0]!r} (it has {', '.join(map(repr, record))}): "
                    "give every line the same columns."
                )
            yield [record[one] for one in chosen]

    first = next(_json_records(name, path), None)
    if first is None:
        raise TiltmeterError(f"{name!r} holds no sequences: it is empty; give one with at least one line.")
    return table_source(name, list(first[1]), column, read, facts)


def _json_records(name: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        with path.open(encoding="utf-8-sig") as file:  # some editors write a byte order mark
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise TiltmeterError(
                        f"Line {number} of {name!r} is a JSON {type(record).__name__}, expected an object with columns."
                    )
                yield number, record
    except json.JSONDecodeError as error:
        raise TiltmeterError(
            f"Line {number} of {name!r} is not JSON ({error.msg}): write one object a line."
        ) from error
    except UnicodeDecodeError as error:
        raise _undecodable(name, error) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise _unreadable(name, error) from error


def _text(name: str, path: Path, column: str | None, facts: dict[str, str]) -> Documents:
    _refuse_column(name, column)
    try:
        return Documents(name, [path.read_text(encoding="utf-8-sig")], facts)
    except UnicodeDecodeError as error:
        raise _undecodable(name, error) from error


def _refuse_column(name: str, column: str | None) -> None:
    if column is not None:
        raise TiltmeterError(f"{name!r} has no columns, but the column {column!r} was asked for: leave it out.")


def _undecodable(name: str, error: UnicodeDecodeError) -> TiltmeterError:
    return TiltmeterError(f"{name!r} is not text in UTF-8 ({error.reason} at byte {error.start}): convert it to UTF-8.")


def _unreadable(name: str, error: Exception) -> TiltmeterError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return TiltmeterError(f"{name!r} could not be read ({reason}): check that it is a whole file of its kind.")


READERS: dict[str, Callable[[str, Path, str | None, dict[str, str]], TokenSource]] = {
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    **dict.fromkeys((".txt", ".md", ".rst", ".py", ".tex"), _text),
}
"""The reader of each suffix."""
