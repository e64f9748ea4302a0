"""Pictures are hardly rendered for tests of sweeps. `tests/reports` renders pictures of every kind."""

from unrendered import overlapping, unrendered

__all__ = ["overlapping", "unrendered"]
