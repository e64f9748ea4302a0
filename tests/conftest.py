"""What every test runs under: shape annotations are checked, the network is never asked, and torch has one thread.

Tensors of tests are so small that threads wait for each other more than they work: two processes of one thread each
are more than twice as quick as one of two.
"""

import os
from importlib import import_module

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from checked_types import check_types

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
