"""Pictures are not rendered for tests of the command line. `tests/reports` renders pictures of every kind."""

import pytest

from unrendered import no_png


@pytest.fixture(autouse=True, scope="module")
def unrendered():
    yield from no_png()
