"""Clean values, computed once: every point that starts at the same clean run asks for the same ones, in one order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Tape:
    """What rules computed of clean values alone, in the order in which they asked.

    The first pass records, later ones play it. A pass may begin anywhere: each block of a model is a section of its
    own, and passes that begin at different blocks share the later ones.
    """

    def __init__(self) -> None:
        self._sections: dict[Hashable, list[Any]] = {}
        self.seek(None)

    def seek(self, section: Hashable) -> None:
        """Go to the beginning of a section."""
        self._values, self._place = self._sections.setdefault(section, []), 0

    def next(self, compute: Callable[[], Any]) -> Any:
        """The next value; computed where nobody has been here."""
        if self._place == len(self._values):
            self._values.append(compute())
        self._place += 1
        return self._values[self._place - 1]

    def kept(self, section: Hashable, compute: Callable[[], Any]) -> Any:
        """The one value of a section; computed where nobody has been here."""
        self.seek(section)
        return self.next(compute)

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Let `once` ask this tape."""
        self.seek(None)
        token = _PLAYING.set(self)
        try:
            yield
        finally:
            _PLAYING.reset(token)


_PLAYING: ContextVar[Tape | None] = ContextVar("tape", default=None)


def once(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, of clean values alone: from the tape that plays, where one does."""
    tape = _PLAYING.get()
    return function(*arguments) if tape is None else tape.next(lambda: function(*arguments))
