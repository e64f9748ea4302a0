"""What a model's own code raises, told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from weakref import WeakKeyDictionary

import torch
from torch import nn

from tiltmeter.errors import TiltmeterError

_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
"""A lock for each model: a pass hooks its modules and exchanges its blocks, which another thread must not see."""

_registering = Lock()


@contextmanager
def explained(model: nn.Module, doing: str) -> Iterator[None]:
    """Turn an exception of the model's own code into a sentence with the model's class and what was being done.

    One thread at a time runs a model.

    Raises:
        TiltmeterError: the code in the block raised anything but a TiltmeterError or for lack of memory.
    """
    with _registering:
        lock = _locks.setdefault(model, RLock())
    try:
        with lock:
            yield
    except Exception as error:
        if isinstance(error, (TiltmeterError, MemoryError)) or _out_of_memory(error):
            raise
        raise TiltmeterError(
            f"{type(model).__name__} failed while {doing}: {first_line(error)} Try --precision float32 or "
            "--positions all; if both fail, this model cannot be measured here."
        ) from error


def first_line(error: Exception) -> str:
    """The type and first line of an exception, as a sentence; the second too, where the first only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or ["no reason"]
    reason = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1]).rstrip(".")
    return f"{type(error).__name__}: {reason}."


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
