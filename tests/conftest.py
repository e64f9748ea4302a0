"""What every test runs under: shape annotations are checked, the network is never asked, and torch has one thread.

Tensors of tests are so small that threads wait for each other more than they work: two processes of one thread each
are more than twice as quick as one of two.
"""

import os
from importlib import import_module

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from checked_types import begin_test, check_types

LIBRARIES = (
    "beartype.door",
    "matplotlib.figure",
    "pandas",
    "pydantic",
    "scipy.stats",
    "torch._dynamo",
    "torch.distributed.tensor",
    "transformers.generation",
    "transformers.modeling_utils",
    "typer",
    "xarray",
)
for name in LIBRARIES:  # first, because the hook has all that a checked module imports compiled from its source
    import_module(name)

check_types(["tiltmeter", "benchmarks"])

import pytest

from tiltmeter.models.differences import compilation


def pytest_runtest_setup():
    begin_test()


COMPILED_FROM = compilation.MIN_COMPILED_SIZE


@pytest.fixture(autouse=True, scope="session")
def uncompiled():
    """Kernels run as they are written: every process would compile them anew, each for seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compilation, "MIN_COMPILED_SIZE", 2**62)
        yield


@pytest.fixture
def compiled(monkeypatch):
    """Kernels are compiled where they are for users."""
    monkeypatch.setattr(compilation, "MIN_COMPILED_SIZE", COMPILED_FROM)
