"""Padding of stored rows: left out where a mask says what it is, warned of where rows look padded.

A row is run without its padding. Attention is causal, so padding on the right changes nothing before it; padding on the
left would be attended to and would shift positions.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import TiltmeterError

MASK = "attention_mask"
"""The column, or tensor, that is 1 at tokens and 0 at padding."""

RUN = 4
"""So many equal ids at an end of a row look like padding, if rows share them."""

_log = logging.getLogger(__name__)


class MaskedRow(NamedTuple):
    """A stored row and its mask, not yet validated."""

    ids: object
    mask: object


def masked_rows(rows: Iterable[object], masks: Iterable[object]) -> Iterator[MaskedRow]:
    """Pair rows with their masks."""
    return (MaskedRow(ids, mask) for ids, mask in zip(rows, masks, strict=True))


def check_mask_shape(mask: Sequence[int], ids: Sequence[int], name: str) -> None:
    """Raise `TiltmeterError` unless a mask is shaped as the ids that it belongs to."""
    if tuple(mask) != tuple(ids):
        raise TiltmeterError(
            f"The mask ({MASK}) of {name!r} has shape {tuple(mask)}, but the token ids {tuple(ids)}: give the mask "
            "that belongs to them, or leave it out."
        )


def unpadded(ids: Integer[np.ndarray, " position"], mask: object, where: str) -> Integer[np.ndarray, " token"]:
    """The tokens of a row, without the padding before and after them; `where` begins the sentence of an error.

    Raises:
        TiltmeterError: the mask has another shape, other values than 0 and 1, or zeros between tokens.
    """
    kept = _as_array(mask)
    if kept.shape != ids.shape or kept.dtype.kind not in "biuf" or not np.isin(kept, (0, 1)).all():
        raise TiltmeterError(
            f"{where} has {len(ids)} token ids and a mask ({MASK}) that is not a list of as many 0 and 1: give each "
            "row the mask that its tokenizer made, or leave the column out."
        )
    real = np.flatnonzero(kept)
    if len(real) and real[-1] - real[0] + 1 != len(real):
        raise TiltmeterError(
            f"{where} has masked positions between its tokens ({MASK} is 0 at {real[0] + _first_gap(real)}): expected "
            "padding at the beginning or the end; split the row there, or leave the mask out."
        )
    return ids[real]


def _as_array(mask: object) -> np.ndarray:
    try:
        return np.asarray(mask)
    except ValueError:  # a ragged list of lists
        return np.full((1, 1), -1)


def _first_gap(real: np.ndarray) -> int:
    """How far after the first token the first masked position is."""
    return int(np.flatnonzero(np.diff(real) > 1)[0]) + 1


def warn_of_padding(
    ids: Integer[np.ndarray, "sequence position"], tokenizer: PreTrainedTokenizerBase | None, name: str
) -> None:
    """Warn if sequences hold the tokenizer's pad token as only padding puts it, or share a run of one id at an end."""
    found = _with_pad_token(ids, tokenizer) or _with_runs(ids)
    if found is None:
        return
    token, rows = found
    _log.warning(
        "warning: %d of the %d sequences of %s look padded with token %d, which would be run, perturbed and averaged "
        "as text: store a column %s beside the ids, or cut the padding away.",
        rows,
        len(ids),
        name,
        token,
        MASK,
    )


def _with_pad_token(ids: np.ndarray, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, int] | None:
    pad = None if tokenizer is None else tokenizer.pad_token_id
    if tokenizer is None or pad is None:
        return None
    if pad in (tokenizer.bos_token_id, tokenizer.eos_token_id):  # then one of them may be a document's own
        padded = ((_runs(ids) > 1) & (_ends(ids) == pad)).any(axis=0)
    else:
        padded = (ids == pad).any(axis=1)
    return (int(pad), int(padded.sum())) if padded.any() else None


def _with_runs(ids: np.ndarray) -> tuple[int, int] | None:
    long = _runs(ids) >= RUN
    ends = np.where(long, _ends(ids).astype(np.int64), -1)  # stored ids may be unsigned
    rows = Counter(token for row in ends.T.tolist() for token in set(row) if token != -1)
    token, count = max(rows.items(), key=lambda item: item[1], default=(-1, 0))
    return (token, count) if count > 1 else None


def _ends(ids: np.ndarray) -> np.ndarray:
    """The first and the last id of each row, `[2, sequence]`."""
    return np.stack([ids[:, 0], ids[:, -1]])


def _runs(ids: np.ndarray) -> np.ndarray:
    """How many ids at the beginning and at the end of each row are equal, `[2, sequence]`."""
    return np.stack([np.cumprod(one == one[:, :1], axis=1).sum(axis=1) for one in (ids, ids[:, ::-1])])
