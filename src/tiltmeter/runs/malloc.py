"""Memory that is freed and wanted again a moment later."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Names of `mallopt`'s parameters."""

SETTINGS = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 * 2**20}


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what this process frees for what it wants next.

    Otherwise every large tensor gets new pages from the kernel, which clears each of them: a fifth of a sweep's time.
    """
    with _libc() as libc:
        for parameter, value in SETTINGS.items():
            libc.mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Let others have what this process has kept so far."""
    with _libc() as libc:
        libc.malloc_trim(0)


@contextmanager
def _libc() -> Iterator[ctypes.CDLL]:
    """The C library of Linux; where there is another, which has no such functions, what is asked of it is left out."""
    with suppress(OSError, AttributeError, TypeError):  # Windows knows no library without a name
        yield ctypes.CDLL(None)
