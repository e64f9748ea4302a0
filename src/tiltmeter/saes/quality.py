"""What an SAE is worth on a model: L0, explained variance, and what happens to the output with it spliced in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tiltmeter.model import CleanRun, SplitModel
from tiltmeter.positions import InOrOut, allowed, boundary_mask
from tiltmeter.readouts import Readout, measure
from tiltmeter.sites import Site

Reconstruct = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From activations to latents and reconstruction."""


@dataclass(frozen=True)
class Quality:
    """Means over tokens. Boundary positions count in `loss`, `clean_loss` and `kl` alone."""

    tokens: int
    """Tokens of the sequences."""
    l0: float
    """Latents above zero per token."""
    explained_variance: float
    """1 - Σ‖x - x̂‖² / Σ‖x - mean of x‖²."""
    distance: float
    """ε = ‖x - x̂‖."""
    norm: float
    """‖x‖."""
    alive: int
    """Latents that fired at least once on these tokens."""
    clean_loss: float
    """Cross-entropy of the next token, nats."""
    loss: float
    """The same with the SAE's reconstruction in the place of every activation."""
    kl: float
    """KL(clean ‖ spliced), nats."""

    @property
    def loss_increase(self) -> float:
        """Cross-entropy that the SAE costs, nats per token."""
        return self.loss - self.clean_loss


@torch.no_grad()
def assess(
    model: SplitModel,
    reconstruct: Reconstruct,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    site: Site,
    spliced: InOrOut = "in",
    batch: int = 8,
) -> Quality:
    """Run the model on `ids`, clean and with reconstructions at all positions, or (`out`) all but boundary ones.

    Reconstructions are taken as they are measured at the site: in a centred stream, minus their mean over d_model.
    """
    totals = _Totals()
    edge = boundary_mask(ids, boundary)
    counted, replaced = allowed(edge, "out"), allowed(edge, spliced)
    for rows in _slices(len(ids), batch):
        clean = model.start(ids[rows], site)
        latents, given = reconstruct(clean.activation)
        given = model.centre(given.to(clean.activation), site)
        totals.add_activations(clean.activation, latents, given, counted[rows].to(given.device))
        at = replaced[rows, :, None].to(given.device)
        totals.add_output(model, clean, torch.where(at, given, clean.activation))
    return totals.quality(ids.numel())


class _Totals:
    """Sums over batches, float64."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.mean: Tensor = torch.zeros(())
        self.fired: Tensor = torch.zeros((), dtype=torch.bool)

    def add(self, **values: Tensor | float | int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def add_activations(self, x: Tensor, latents: Tensor, given: Tensor, counted: Bool[Tensor, "b p"]) -> None:
        x, error, active = x[counted].double(), (x - given)[counted].double(), latents[counted] > 0
        self.mean = self.mean + x.sum(0)
        self.fired = self.fired | active.any(0)
        self.add(
            counted=len(x),
            active=active.sum(),
            squares=x.square().sum(),
            errors=error.square().sum(),
            distances=error.norm(dim=-1).sum(),
            norms=x.norm(dim=-1).sum(),
        )

    def add_output(self, model: SplitModel, clean: CleanRun, given: Tensor) -> None:
        points = torch.stack([clean.activation, given])
        readouts = [Readout("kl"), Readout("loss")]
        found = measure(model, clean, model.resume(clean, points), readouts, range(clean.span.stop))
        loss = found["loss"][..., :-1]
        self.add(kl=found["kl"][1].sum(), kl_tokens=found["kl"][1].numel(), clean=loss[0].sum(), spliced=loss[1].sum())
        self.add(loss_tokens=loss[0].numel())

    def quality(self, tokens: int) -> Quality:
        s = self.sums
        variance = s["squares"] - float(self.mean.square().sum()) / s["counted"]
        return Quality(
            tokens=tokens,
            l0=s["active"] / s["counted"],
            explained_variance=1 - s["errors"] / variance,
            distance=s["distances"] / s["counted"],
            norm=s["norms"] / s["counted"],
            alive=int(self.fired.sum()),
            clean_loss=s["clean"] / s["loss_tokens"],
            loss=s["spliced"] / s["loss_tokens"],
            kl=s["kl"] / s["kl_tokens"],
        )


def _slices(count: int, size: int) -> Iterator[slice]:
    for begin in range(0, count, size):
        yield slice(begin, begin + size)
