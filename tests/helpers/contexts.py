"""Contexts for tests of sources and directions."""

import torch

from tiltmeter.analysis.massive import MassiveCount
from tiltmeter.perturb.sources import Context


def context_at(address, x=None):
    """The tokens at an address, which are all that their sequences have; `x` where the activation matters."""
    shape = len(address.sequences), len(address.positions)
    x = torch.zeros(*shape, 1) if x is None else x
    return Context(x, address, lambda: x, lambda: torch.ones(shape, dtype=torch.bool, device=x.device))


NONE_MASSIVE = MassiveCount(median=1.0, limit=10.0, largest=2.0, first=0, of_first=1, later=0, of_later=1)
"""For statistics that are made by hand."""
