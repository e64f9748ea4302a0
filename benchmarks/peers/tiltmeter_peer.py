"""tiltmeter: `SplitModel.starts`, `changes` and `measure`, of which its sweeps consist."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.workloads import Workload
from tiltmeter.models.positions import Span
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel

SEQUENCES = {"cpu": 8, "cuda": 64}
"""Largest number of sequences in a batch."""

POINT_TOKENS = {"cpu": 8192, "cuda": 32768}
"""Largest number of perturbed tokens in a forward pass."""


@torch.no_grad()
def measure_workload(model: SplitModel, work: Workload) -> dict[str, Float[Tensor, "layer point sequence read"]]:
    """All readouts of a workload."""
    last = Site(model.n_layers - 1, "resid_post")
    span = Span(work.read.start, work.read.stop)
    readouts = [Readout(name) if name != "l2" else Readout("l2", last) for name in work.readouts]
    reads = tuple(readout.site for readout in readouts if readout.site is not None)
    parts = []
    device = work.tokens.device.type
    for batch in work.batches(SEQUENCES[device]):
        layers = []
        sites = [Site(layer, "resid_pre") for layer in work.layers]
        for layer, clean in zip(
            work.layers, model.starts(work.tokens[batch], sites, reads, span).values(), strict=True
        ):
            size = max(1, POINT_TOKENS[device] // clean.entry[..., 0].numel())
            found = []
            for first in range(0, len(work.lengths), size):
                change = work.change(layer, work.lengths[first : first + size], batch)[:, :, span.first : span.stop]
                found.append(compute_readouts(model, clean, model.changes(clean, change), readouts, work.read))
            layers.append({r.name: torch.cat([one[r.name] for one in found]) for r in readouts})
        parts.append({r.kind: torch.stack([layer[r.name] for layer in layers]) for r in readouts})
    return {name: torch.cat([part[name] for part in parts], 2) for name in work.readouts}
