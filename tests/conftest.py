"""What every test runs under: shape annotations are checked, the network is never asked, and torch has one thread.

Tensors of tests are so small that threads wait for each other more than they work: two processes of one thread each
are more than twice as quick as one of two.
"""

import gc
import os
from functools import cache
from importlib import import_module
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from checked_types import begin_test, check_types, with_shapes

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


def pytest_configure(config):
    """Check the types of what is imported from now on; not in the process of xdist that hands out the tests."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    for name in LIBRARIES:  # first, because the hook has all that a checked module imports compiled from its source
        import_module(name)
    check_types(with_shapes("tiltmeter", "benchmarks"))


def pytest_collection_finish():
    """Leave millions of objects of imported libraries out of every later garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # the default takes a tenth of the time


def pytest_runtest_setup():
    begin_test()


@pytest.fixture(autouse=True, scope="session")
def tokenised_once():
    """The ids of nano's held-out text, which takes seconds, are kept; another tokenizer's are not."""
    data, nano = import_module("tiltmeter.data.nano_text"), import_module("tiltmeter.models.nano")
    encode, kept = data.encode, {}

    def encode_once(texts, tokenizer):
        texts = list(texts)
        if Path(tokenizer.name_or_path) != Path(nano.__path__[0]):
            return encode(texts, tokenizer)
        new = [text for text in texts if text not in kept]
        kept.update(zip(new, encode(new, tokenizer), strict=True))
        return (kept[text].copy() for text in texts)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(data, "encode", encode_once)
        yield


@pytest.fixture(autouse=True, scope="session")
def nano_loaded_once():
    """The model nano is loaded once for each precision, device and so on: its first checks take long."""
    loading = import_module("tiltmeter.models.loading")
    load, kept = loading._by_name, {}

    def load_once(given, tokenizer, *how):
        if given != "nano" or tokenizer is not None:
            return load(given, tokenizer, *how)
        return kept.get(how) or kept.setdefault(how, load(given, tokenizer, *how))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loading, "_by_name", load_once)
        yield


@pytest.fixture(autouse=True, scope="session")
def quicker():
    """What takes long in every test is done once, or less of it than users get."""
    typer = import_module("typer.main")
    with pytest.MonkeyPatch.context() as patched:
        # The options of all commands are read from their signatures once, as in a process of a user.
        patched.setattr(typer, "get_command", cache(typer.get_command))
        # The mean distance of real activations is taken in every run.
        patched.setattr("tiltmeter.perturb.site_statistics.PAIRS", 4096)
        # Kernels run as they are written: every process would compile them anew, each for seconds.
        # `models/test_differences.py` compiles each and compares.
        patched.setattr("tiltmeter.models.differences.compilation.MIN_COMPILED_SIZE", 2**62)
        yield
