"""Memory that is freed and wanted again a moment later."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Names of `mallopt`'s parameters."""

MIB = 2**20


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what is freed, up to 32 MiB a piece, for what is wanted next.

    Otherwise each large tensor gets new pages from the kernel, which clears them: a fifth of the time of a sweep.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library has no such setting
        libc = ctypes.CDLL(None)
        for parameter, value in ((MMAP_THRESHOLD, 32 * MIB), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 * MIB)):
            libc.mallopt(parameter, value)
