"""What every test runs under: shape annotations are checked, and the network is never asked."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from jaxtyping import install_import_hook

install_import_hook("tiltmeter", "beartype.beartype")
