"""What every test runs under: shape annotations are checked, the network is never asked, and torch has one thread.

Tensors of tests are so small that threads wait for each other more than they work: two processes of one thread each
are more than twice as quick as one of two.
"""

import gc
import os
from importlib import import_module

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

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


def pytest_collection_finish():
    """Leave millions of objects of imported libraries out of every later garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup():
    begin_test()


@pytest.fixture(autouse=True, scope="session")
def uncompiled():
    """Kernels run as they are written: every process would compile them anew, each for seconds.

    `models/test_differences.py` compiles each and compares.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tiltmeter.models.differences.compilation.MIN_COMPILED_SIZE", 2**62)
        yield
