"""Reports with hasty pictures: PNGs, and finding room for what is written, take as long as all the rest of a small one."""

import pytest

from tiltmeter.reports.charts import mpl


@pytest.fixture(autouse=True, scope="module")
def unrendered():
    """Write a stub for each PNG and PDF."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("to_png", "to_pdf"):
            patched.setattr(mpl, name, lambda _: b"not rendered")
        yield


@pytest.fixture(autouse=True, scope="module")
def overlapping():
    """Let panels overlap."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mpl, "_lay_out_once", lambda drawing: drawing.set_layout_engine(None))
        yield
