"""How much was measured, in words: `24 sequences`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from tiltmeter.analysis.curves import documents_of


def measured_on(used: Mapping[str, xr.Dataset]) -> str:
    """A sentence that says how many sequences the datasets are of, and of how many documents where they say it.

    Experiments of one size are named only beside others of another. Empty if nothing is of sequences of tokens.
    """
    sizes: dict[str, list[str]] = {}
    for name, data in used.items():
        if "step" in data.dims and "sequence" in data.dims:
            sizes.setdefault(_size(data), []).append(name)
    if len(sizes) < 2:
        return "".join(f"Measured on {size}." for size in sizes)
    parts = [f"{size} ({', '.join(names)})" for size, names in sizes.items()]
    return f"Measured on {'; '.join(parts)}."


def _size(data: xr.Dataset) -> str:
    n, documents = data.sizes["sequence"], documents_of(data)
    words = f"{n:,} sequence{'s' * (n != 1)}"
    if documents is None:
        return words
    known = len(np.unique(documents))
    return f"{words} of {known:,} document{'s' * (known != 1)}"
