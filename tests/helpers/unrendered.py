"""Reports without PNGs, which take as long as all the rest of a small report."""

import pytest

from tiltmeter.reports import figure


def no_png():
    """Write a stub for each PNG, while the caller is suspended at its `yield`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figure, "to_png", lambda _: b"not rendered")
        yield
