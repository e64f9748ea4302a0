"""The peak memory of this process."""

from __future__ import annotations

import sys


def peak_memory() -> int | None:
    """The most memory that this process has had at once, in bytes; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
