"""How positions are written."""

from __future__ import annotations

import re

from tiltmeter.errors import TiltmeterError


def read_positions(text: str, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The perturbed and the read positions that a text means, in sequences of `length` tokens.

    `all`; `last`; `32` (that one); `32+16` (perturb 32, read 32 to 48); `3,7,9` (perturb and read these).

    Raises:
        TiltmeterError: the text is none of these, or a position is outside the sequence.
    """
    text = text.strip()
    if text == "all":
        perturbed = read = tuple(range(length))
    elif text == "last":
        perturbed = read = (length - 1,)
    elif match := re.fullmatch(r"(\d{1,9})\+(\d{1,9})", text):
        first, last = int(match[1]), int(match[1]) + int(match[2])
        _refuse_outside(last, length)  # before they are all listed
        perturbed, read = (first,), tuple(range(first, last + 1))
    elif re.fullmatch(r"\d{1,9}(,\s*\d{1,9})*", text):
        perturbed = read = tuple(sorted({int(part) for part in text.split(",")}))
    else:
        raise TiltmeterError(
            f"Positions {text!r} were not understood; give all, last, one position (32), one and the n after it "
            "(32+16) or a list (3,7,9)."
        )
    _refuse_outside(max(read), length)
    return perturbed, read


def _refuse_outside(last: int, length: int) -> None:
    if last >= length:
        raise TiltmeterError(
            f"Position {last} was asked for, but the sequences have {length} tokens (positions 0 to {length - 1})."
        )
