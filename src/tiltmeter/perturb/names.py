"""Parsing of direction and base names: `isotropic`, `epsilon-random@3:NAME`, `along:FILE#ROW`, `blend:0.5*real+...`.

This module defines the syntax of names. `registry.py` and `bases.py` define which kinds exist.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import NamedTuple

from tiltmeter.errors import TiltmeterError, did_you_mean

ALONG = "along"
"""The kind of a user's own vectors. The argument is a file, and optionally which of its vectors."""

BLEND = "blend"
"""The kind of weighted sums of (sample - x). The argument lists the terms."""

BLEND_SOURCES = ("real", "cov-random", "isotropic")
"""Sources that can be blended: activations of other sequences, N(mean, covariance) and N(0, I)."""

_NUMBERED = re.compile(r"(?P<kind>[a-z0-9-]+)@(?P<draw>[1-9][0-9]{0,8})(?P<rest>(:.*)?)", re.DOTALL)
_TERM = re.compile(rf"(-?\d*\.?\d+(?:e-?\d+)?)\*({'|'.join(BLEND_SOURCES)})")


@dataclass(frozen=True)
class DirectionName:
    """The name of a direction: `KIND`, `KIND@DRAW`, `KIND:ARGUMENT` or `KIND@DRAW:ARGUMENT`."""

    kind: str
    argument: str | None = None
    """The text after the colon: an SAE's name, a user's vector or the terms of a blend. None without a colon."""
    draw: int = 0
    """`KIND@1`, `KIND@2`, ... are further, independent draws of a random direction. The plain name is draw 0."""

    @classmethod
    def parse(cls, text: str) -> DirectionName:
        """Parse a name; `str` is the inverse.

        Raises:
            TiltmeterError: a blend whose terms cannot be read.
        """
        numbered = _NUMBERED.fullmatch(text)
        # Files and blends have no numbered draws, so `along@2` is simply an unknown kind.
        if numbered is None or numbered["kind"] in (ALONG, BLEND):
            name = cls(*_split(text))
        else:
            name = cls(*_split(numbered["kind"] + numbered["rest"]), int(numbered["draw"]))
        if name.kind == BLEND and name.argument is not None:
            _ = name.terms  # raises here for a malformed blend, rather than when it is first drawn
        return name

    def __str__(self) -> str:
        """Return the name as users write it and as results show it."""
        return _joined(f"{self.kind}@{self.draw}" if self.draw else self.kind, self.argument)

    @cached_property
    def terms(self) -> tuple[tuple[float, str], ...]:
        """The weights and sources of a blend; `blend:0.5*real+0.5*cov-random` is (0.5, real), (0.5, cov-random).

        Raises:
            TiltmeterError: the terms are malformed, or a source cannot be blended.
        """
        found = [_TERM.fullmatch(term) for term in (self.argument or "").split("+")]
        terms = tuple((float(match[1]), match[2]) for match in found if match)
        if len(terms) < len(found) or not all(isfinite(weight) for weight, _ in terms):
            raise TiltmeterError(
                f"The direction {str(self)!r} could not be parsed; give finite weights and sources "
                f"({', '.join(BLEND_SOURCES)}), as in blend:0.5*real+0.25*cov-random+0.25*cov-random."
            )
        return terms


@dataclass(frozen=True)
class BaseName:
    """The name of a base: `KIND`, or `KIND:SAE`."""

    kind: str
    argument: str | None = None
    """The name of the SAE. None without a colon."""

    @classmethod
    def parse(cls, text: str) -> BaseName:
        """Parse a name; `str` is the inverse."""
        return cls(*_split(text))

    def __str__(self) -> str:
        """Return the name as users write it and as results show it."""
        return _joined(self.kind, self.argument)


def draws(kind: str, count: int) -> tuple[str, ...]:
    """Return the names of `count` independent draws of a kind: `KIND`, `KIND@1`, `KIND@2`, ..."""
    return tuple(str(DirectionName(kind, draw=number)) for number in range(count))


class Kinds(NamedTuple):
    """The kinds of directions or of bases that there are."""

    plain: Collection[str]
    of_saes: Collection[str]
    """Kinds whose argument is the name of an SAE."""
    fixed: Collection[str] = ()
    """Kinds in which nothing is random, so that there is no second draw."""


def check_direction(name: DirectionName, saes: Collection[str], kinds: Kinds) -> None:
    """Check that this is the name of a direction, in a run with SAEs of these names.

    User vectors (`along:...`) are not looked up here.

    Raises:
        TiltmeterError: the kind or its SAE does not exist, or a draw is numbered although nothing is random.
    """
    if name.kind == BLEND and name.argument is not None:
        return
    if name.draw and name.kind in kinds.fixed:
        raise TiltmeterError(
            f"Nothing is drawn in {name.kind}, so {str(name)!r} would be the same again; leave out @{name.draw}."
        )
    if name.kind in kinds.of_saes:
        check_sae(name, saes)
    elif name.kind not in kinds.plain or name.argument is not None:
        raise TiltmeterError(
            f"{str(name)!r} is not a direction{_near(name, kinds)}; tiltmeter list directions shows all."
        )


def check_base(name: BaseName, saes: Collection[str], kinds: Kinds) -> None:
    """Check that this is the name of a base, in a run with SAEs of these names.

    Raises:
        TiltmeterError: the kind or its SAE does not exist.
    """
    if name.kind in kinds.of_saes:
        check_sae(name, saes)
    elif str(name) not in kinds.plain:
        raise TiltmeterError(
            f"{str(name)!r} is not a base{did_you_mean(name.kind, (*kinds.plain, *kinds.of_saes))}; tiltmeter list "
            "bases shows all."
        )


def _near(name: DirectionName, kinds: Kinds) -> str:
    """What the name of no direction may have meant: a file of vectors, or a kind that is spelt like it."""
    if "." in name.kind or "/" in name.kind:
        return f" (did you mean {ALONG}:{name}?)"
    if name.kind in kinds.plain:
        return f" (did you mean {name.kind}?)"
    ends = "" if name.argument is None else f":{name.argument}"
    own = (f"{ALONG}:FILE", f"{BLEND}:0.5*real+0.5*cov-random")
    return did_you_mean(str(name), (*kinds.plain, *(f"{kind}{ends}" for kind in kinds.of_saes), *own))


def check_sae(name: DirectionName | BaseName, saes: Collection[str]) -> None:
    """Check that a name of a kind that needs an SAE names one of these.

    Raises:
        TiltmeterError: the name has no SAE, or one that the run does not have.
    """
    if name.argument in saes:
        return
    known = f"the SAEs of this run are {', '.join(saes)}" if saes else "this run has none: give one with --sae"
    given = (
        f"{str(name)!r} needs an SAE, as {name}:NAME"
        if name.argument is None
        else f"{name.argument!r} in {str(name)!r} is not an SAE of this run"
    )
    raise TiltmeterError(f"{given}; {known}.")


def _split(text: str) -> tuple[str, str | None]:
    kind, colon, argument = text.partition(":")
    return kind, argument if colon else None


def _joined(kind: str, argument: str | None) -> str:
    return kind if argument is None else f"{kind}:{argument}"
