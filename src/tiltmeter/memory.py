"""Memory that is freed and wanted again a moment later."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Names of `mallopt`'s parameters."""

SETTINGS = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 * 2**20}


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what this process frees for what it wants next.

    Otherwise every large tensor gets new pages from the kernel, which clears each of them: a fifth of a sweep's time.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library has no such setting
        libc = ctypes.CDLL(None)
        for parameter, value in SETTINGS.items():
            libc.mallopt(parameter, value)
