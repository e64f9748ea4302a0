"""Pictures are hardly rendered for tests of the command line. `tests/reports` renders pictures of every kind."""

from unrendered import overlapping, unrendered

__all__ = ["overlapping", "unrendered"]
