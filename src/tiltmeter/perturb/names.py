"""Further draws of a random direction: `epsilon-random@3:NAME` is another vector where `epsilon-random:NAME` is one.

The number is the draw of the address that random numbers come from (`noise.py`), so that all draws of one direction
are independent, and the one without a number is draw 0.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from tiltmeter.errors import TiltmeterError

FIXED = frozenset(
    {
        "sae-error",
        "sae-error-linear",
        "sae-error-nonlinear",
        "minus-sae-error",
        "minus-sae-error-linear",
        "minus-sae-error-nonlinear",
        "sae-norm-corrected",
        "sae-cos-corrected",
        "zero",
        "mean",
    }
)
"""Kinds of direction in which nothing is drawn: every draw would be the same."""

_NUMBERED = re.compile(r"(?P<kind>[a-z0-9-]+)@(?P<draw>[1-9][0-9]{0,8})(?P<sae>(:.*)?)", re.DOTALL)


class Numbered(NamedTuple):
    """A direction's name, and which of its draws."""

    name: str
    """Without the number."""
    draw: int


def split_draw(name: str) -> Numbered:
    """The name without its number, and the number: 0 where it has none.

    Raises:
        TiltmeterError: a number on a direction in which nothing is drawn.
    """
    found = _NUMBERED.fullmatch(name)
    if found is None:
        return Numbered(name, 0)
    if found["kind"] in FIXED:
        raise TiltmeterError(
            f"Nothing is drawn in {found['kind']}, so {name!r} would be the same again; leave out @{found['draw']}."
        )
    return Numbered(found["kind"] + found["sae"], int(found["draw"]))


def draws(kind: str, count: int) -> tuple[str, ...]:
    """So many independent draws of a kind: `KIND`, `KIND@1`, `KIND@2`, ..."""
    return tuple(f"{kind}@{number}" if number else kind for number in range(count))


def names_an_sae(name: str, kinds: Collection[str], saes: Collection[str]) -> bool:
    """Whether `name` is one of these kinds, of one of these SAEs; False where it is none of the kinds.

    Raises:
        TiltmeterError: it is one of the kinds, but names no SAE, or one that the run does not have.
    """
    kind, colon, sae = name.partition(":")
    if kind not in kinds:
        return False
    if sae in saes:
        return True
    known = f"the SAEs of this run are {', '.join(saes)}" if saes else "this run has none: give one with --sae"
    given = f"{sae!r} in {name!r} is not an SAE of this run" if colon else f"{name!r} needs an SAE, as {name}:NAME"
    raise TiltmeterError(f"{given}; {known}.")
