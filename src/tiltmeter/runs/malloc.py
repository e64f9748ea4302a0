"""Let malloc reuse freed memory instead of returning it to the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameter numbers of glibc's `mallopt`."""

SETTINGS = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 * 2**20}


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for later allocations of this process.

    By default every large tensor gets fresh pages, which the kernel must zero: a fifth of a sweep's time.
    """
    with _libc() as libc:
        for parameter, value in SETTINGS.items():
            libc.mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Return the kept memory to the system."""
    with _libc() as libc:
        libc.malloc_trim(0)


@contextmanager
def _libc() -> Iterator[ctypes.CDLL]:
    """The C library; with any other than glibc, which lacks these functions, the block is skipped silently."""
    with suppress(OSError, AttributeError, TypeError):  # Windows: TypeError, as None is not a library name
        yield ctypes.CDLL(None)
