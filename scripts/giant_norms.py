"""What giant activations cost in digits: KL in each precision against plain hooks on the full pass in float64.

python scripts/giant_norms.py MODEL

At position 0 of a trained model the residual stream may be 180 times as long as elsewhere. Each row pushes either that
position or the later half of the positions, by a fraction of each activation's norm in a random direction, and says how
far the mean KL over the later half is from that of the hooks.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import tiltmeter as tm
from english import write
from real_model import by_hooks
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.positions import Span
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.sites import Site

PRECISIONS = ("float32", "float32-difference", "bf16-difference")
FRACTIONS = (0.3, 0.003)
"""Lengths of the perturbation, in norms of each activation."""
SEQUENCES, LENGTH = 2, 128


def kl(loaded: LoadedModel, ids: Tensor, site: Site, push: Tensor) -> float:
    """Mean KL over the later half of the positions when `push` [batch, position, width] is added at the site."""
    clean = loaded.model.start(ids, site, (), Span(0, ids.shape[1]))
    late = loaded.model.changes(clean, push[None].to(clean.activation))
    read = range(ids.shape[1] // 2, ids.shape[1])
    return float(compute_readouts(loaded.model, clean, late, [Readout("kl")], read)["kl"].mean())


def random_push(x: Tensor, moved: slice, fraction: float) -> Tensor:
    """Random vectors of a fraction of each activation's norm, at some positions."""
    push = torch.zeros_like(x)
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[:, moved]
    push[:, moved] = drawn / drawn.norm(dim=-1, keepdim=True) * x[:, moved].norm(dim=-1, keepdim=True) * fraction
    return push


def main() -> None:
    """Print the table."""
    name = sys.argv[1]
    exact = tm.load_model(name, precision="float64")
    loaded = [tm.load_model(name, precision=precision) for precision in PRECISIONS]
    with tempfile.TemporaryDirectory() as place:
        text = str(write(Path(place) / "english.txt"))
        ids = exact.load_tokens(text, at_most=SEQUENCES, length=LENGTH).ids
    half, n_layers = LENGTH // 2, exact.model.n_layers
    columns = ("site", "pushed", "norm there", "by, in norms", "KL", *(f"error {one}" for one in PRECISIONS))
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for layer in sorted({1, n_layers // 2, n_layers - 1}):
        site = Site(layer, "resid_pre")
        x = exact.model.activation(ids, site)
        for pushed, moved in (("position 0", slice(0, 1)), ("later half", slice(half, LENGTH))):
            norm = float(x[:, moved].norm(dim=-1).mean())
            for fraction in FRACTIONS:
                push = random_push(x, moved, fraction)
                right = by_hooks(exact, ids, site, push, half)
                errors = " | ".join(f"{abs(kl(one, ids, site, push) / right - 1):.0e}" for one in loaded)
                print(f"| `{site.name}` | {pushed} | {norm:,.0f} | {fraction} | {right:.3g} | {errors} |", flush=True)


if __name__ == "__main__":
    main()
