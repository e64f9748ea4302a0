"""What every test runs under: shape annotations are checked, the network is never asked, and torch has one thread.

Tensors of tests are so small that threads wait for each other more than they work: two processes of one thread each
are more than twice as quick as one of two.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook(["tiltmeter", "benchmarks"], "beartype.beartype")
