"""Reports with hasty pictures: PNGs, and finding room for what is written, take as long as all the rest of a small one."""

import pytest

from tiltmeter.reports import figure
from tiltmeter.reports.charts import mpl


def no_png():
    """Write a stub for each PNG, while the caller is suspended at its `yield`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figure, "to_png", lambda _: b"not rendered")
        yield


def no_layout():
    """Let panels overlap, while the caller is suspended at its `yield`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mpl, "_lay_out_once", lambda drawing: drawing.set_layout_engine(None))
        yield
