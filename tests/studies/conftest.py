"""Studies are judged here with fewer bootstrap draws than users get, which is several times as fast."""

import pytest

from tiltmeter.analysis import estimates

RESAMPLES = 99


@pytest.fixture(autouse=True, scope="package")
def fewer_draws():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimates, "RESAMPLES", RESAMPLES)
        yield
