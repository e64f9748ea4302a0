"""What a model's own code raises, told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tiltmeter.errors import TiltmeterError


@contextmanager
def explained(model: nn.Module, doing: str) -> Iterator[None]:
    """Turn an exception of the model's own code into a sentence with the model's class and what was being done.

    Raises:
        TiltmeterError: the code in the block raised anything but a TiltmeterError or for lack of memory.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (TiltmeterError, MemoryError)) or _out_of_memory(error):
            raise
        raise TiltmeterError(
            f"{type(model).__name__} failed while {doing}: {first_line(error)} Try --precision float32 or "
            "--positions all; if both fail, this model cannot be measured here."
        ) from error


def first_line(error: Exception) -> str:
    """The type and first line of an exception, as a sentence."""
    reason = str(error).strip().partition("\n")[0].rstrip(".") or "no reason"
    return f"{type(error).__name__}: {reason}."


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
