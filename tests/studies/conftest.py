"""Studies are judged here with fewer bootstrap draws than users get, and their pictures are neither laid out nor rendered.

All three are several times as fast. `tests/reports` lays out and renders pictures of every kind.
"""

import pytest

from tiltmeter.analysis import estimates
from tiltmeter.saes.training import run as training_run
from unrendered import overlapping, unrendered

__all__ = ["overlapping", "unrendered"]

RESAMPLES = 99


@pytest.fixture(autouse=True, scope="module")
def fewer_draws():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimates, "RESAMPLES", RESAMPLES)
        yield


@pytest.fixture(autouse=True, scope="module")
def training_not_drawn():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training_run, "draw", lambda _: b"")
        yield
