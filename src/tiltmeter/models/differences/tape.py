"""A tape of clean values, so that they are computed once per clean run and not once per perturbed run.

It needs no keys: every perturbed run from the same site asks for the same clean values in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Tape:
    """Values that rules computed from clean values alone, in the order in which they were asked for.

    The first pass records, later passes play back. Each block of a model is a section of its own, so that runs from
    different sites share the sections of later blocks.
    """

    def __init__(self) -> None:
        self._sections: dict[Hashable, list[Any]] = {}
        self.seek(None)

    def seek(self, section: Hashable) -> None:
        """Go to the start of a section."""
        self._values, self._place = self._sections.setdefault(section, []), 0

    def next(self, compute: Callable[[], Any]) -> Any:
        """Return the next value; compute and record it if the tape ends here."""
        if self._place == len(self._values):
            self._values.append(compute())
        self._place += 1
        return self._values[self._place - 1]

    def kept(self, section: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the only value of a section; compute it the first time."""
        self.seek(section)
        return self.next(compute)

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Within the block, `once` uses this tape."""
        self.seek(None)
        token = _PLAYING.set(self)
        try:
            yield
        finally:
            _PLAYING.reset(token)


_PLAYING: ContextVar[Tape | None] = ContextVar("tape", default=None)


def once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return `function(*arguments)`, from the playing tape if there is one. Arguments must be clean values."""
    tape = _PLAYING.get()
    return function(*arguments) if tape is None else tape.next(lambda: function(*arguments))
