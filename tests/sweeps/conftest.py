"""Pictures are hardly rendered for tests of sweeps. `tests/reports` renders pictures of every kind."""

import pytest

from unrendered import no_layout, no_png


@pytest.fixture(autouse=True, scope="module")
def unrendered():
    yield from no_png()


@pytest.fixture(autouse=True, scope="module")
def overlapping():
    yield from no_layout()
