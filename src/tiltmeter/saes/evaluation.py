"""SAE evaluation metrics: sparsity, reconstruction, and the effect on the output when the SAE is spliced in.

L0 and explained variance say how well an SAE describes activations; the loss increase and the KL say how much of what
the model uses its reconstructions keep. The two need not agree: end-to-end SAEs (Braun et al. 2024) keep the output and
explain little variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.analysis.massive import MASSIVE_RATIO, count_massive, norms_of, ordinary
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun, LateActivations
from tiltmeter.models.positions import InOrOut, allowed, boundary_mask
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.sae import SAE

Reconstruct = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A function from activations to (latents, reconstruction)."""


def through(sae: SAE) -> Reconstruct:
    """The SAE as a function from activations to latents and reconstruction."""

    def reconstruct(x: Tensor) -> tuple[Tensor, Tensor]:
        return (latents := sae.encode(x)), sae.decode(latents, like=x)

    return reconstruct


def keeping_massive(reconstruct: Reconstruct, massive_above: float) -> Reconstruct:
    """The same function, but activations with norms above `massive_above` are given back as they are."""

    def kept(x: Tensor) -> tuple[Tensor, Tensor]:
        latents, given = reconstruct(x)
        return latents, torch.where(ordinary(x, massive_above).to(x.device)[..., None], given.to(x), x)

    return kept


@dataclass(frozen=True)
class SAEMetrics:
    """Means over tokens. Boundary positions and massive activations count only in `loss`, `clean_loss` and `kl`."""

    tokens: int
    """Tokens of the sequences, boundary ones included."""
    l0: float
    """Active latents (above zero) per token."""
    explained_variance: float
    """1 - Σ‖x - x̂‖² / Σ‖x - mean of x‖²; NaN if all activations are equal."""
    distance: float
    """Reconstruction error ε = ‖x - x̂‖, L2."""
    norm: float
    """‖x‖, L2."""
    alive: int
    """Latents that fired at least once on these tokens."""
    clean_loss: float
    """Cross-entropy of the next token, nats."""
    loss: float
    """Cross-entropy with every activation replaced by the SAE's reconstruction, nats."""
    kl: float
    """KL(clean ‖ spliced), nats."""

    @property
    def loss_increase(self) -> float:
        """Increase in cross-entropy due to the SAE, nats per token."""
        return self.loss - self.clean_loss


class Splice(NamedTuple):
    """A reconstruction, and where it replaces activations: `in` at all positions, `out` at all but boundary ones."""

    reconstruct: Reconstruct
    spliced: InOrOut = "in"


@torch.no_grad()
def evaluate(
    model: SplitModel,
    reconstruct: Reconstruct,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    site: Site,
    spliced: InOrOut = "in",
    batch: int = 8,
    massive_above: float | None = None,
) -> SAEMetrics:
    """Run the model on `ids`, clean and with the reconstruction spliced in, and return the SAE's metrics.

    Reconstructions are centred like the activations of the site: in a centred stream, their mean over d_model is
    subtracted, since the model cannot see it.

    Args:
        model: the model, set to the stream (centred or raw) in which activations are measured.
        reconstruct: the SAE, as `through(sae)`, or any other reconstruction to compare it with.
        ids: the sequences.
        boundary: id of the token that begins a document.
        site: where activations are replaced.
        spliced: `in` replaces activations at all positions, `out` at all but boundary ones.
        batch: sequences per forward pass.
        massive_above: norm above which activations are massive; None for `massive_limit` of these sequences.

    Raises:
        TiltmeterError: all positions are boundary positions.
    """
    above = massive_limit(model, ids, boundary, site, batch) if massive_above is None else massive_above
    [found] = evaluate_each(model, [Splice(reconstruct, spliced)], ids, boundary, site, above, batch)
    return found


@torch.no_grad()
def evaluate_each(
    model: SplitModel,
    splices: Sequence[Splice],
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    site: Site,
    massive_above: float,
    batch: int = 8,
) -> list[SAEMetrics]:
    """The metrics of several reconstructions at one site, as `evaluate` computes them, from one clean pass.

    Raises:
        TiltmeterError: all positions are boundary positions.
    """
    counted, edge = not_boundary(ids, boundary), boundary_mask(ids, boundary)
    activations: list[_Activations] = [_Activations() for _ in splices]
    outputs: list[list[dict[str, Tensor]]] = [[] for _ in splices]
    for rows in _slices(len(ids), batch):
        clean = model.start(ids[rows], site)
        at = (counted[rows] & ordinary(clean.activation, massive_above)).to(clean.activation.device)
        finals = []
        for splice, total in zip(splices, activations, strict=True):
            latents, given = splice.reconstruct(clean.activation)
            given = model.centre(given.to(clean.activation), site)
            total.add(clean.activation[at], latents[at], given[at])
            replaced = allowed(edge[rows], splice.spliced)[..., None].to(given.device)
            put = torch.where(replaced, given, clean.activation)
            finals.append(model.resume(clean, put).minus(clean.late).final)
        for output, found in zip(outputs, _readouts(model, clean, finals), strict=True):
            output.append(found)
    return [
        SAEMetrics(
            tokens=ids.numel(),
            l0=total.mean("active"),
            explained_variance=total.explained_variance,
            distance=total.mean("distances"),
            norm=total.mean("norms"),
            alive=int(total.fired.sum()),
            **{name: float(torch.cat([one[name] for one in output]).mean()) for name in output[0]},
        )
        for total, output in zip(activations, outputs, strict=True)
    ]


def massive_limit(
    model: SplitModel, ids: Int[Tensor, "sequence position"], boundary: int | None, site: Site, batch: int = 8
) -> float:
    """The norm above which an activation of these sequences is massive: a multiple of the median norm at the site.

    Raises:
        TiltmeterError: all positions are boundary positions.
    """
    norms = torch.cat([norms_of(model.activation(some, site)) for some in ids.split(batch)])
    return _limit(norms, not_boundary(ids, boundary))


def _limit(norms: Float[Tensor, "sequence position"], counted: Bool[Tensor, "sequence position"]) -> float:
    return count_massive(norms, counted, MASSIVE_RATIO).limit


class _Activations:
    """Running sums over tokens for L0, distance, norm and explained variance, in float64."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.tokens = 0
        self.total: Tensor = torch.zeros(())
        self.fired: Tensor = torch.zeros((), dtype=torch.bool)

    def add(
        self, x: Float[Tensor, "token d_site"], latents: Float[Tensor, "token latent"], given: Float[Tensor, "token d"]
    ) -> None:
        x, error, active = x.double(), x.double() - given.double(), latents > 0
        self.tokens += len(x)
        self.total = x.sum(0) + self.total.to(x.device)
        self.fired = active.any(0) | self.fired.to(active.device)
        found = {
            "active": active.sum(),
            "squares": x.square().sum(),
            "errors": error.square().sum(),
            "distances": error.norm(dim=-1).sum(),
            "norms": x.norm(dim=-1).sum(),
        }
        self.sums = {name: self.sums.get(name, 0.0) + float(value) for name, value in found.items()}

    def mean(self, name: str) -> float:
        return self.sums[name] / self.tokens

    @property
    def explained_variance(self) -> float:
        variance = self.sums["squares"] - float(self.total.square().sum()) / self.tokens
        spread = variance > 1e-12 * self.sums["squares"]  # anything smaller is rounding error
        return 1 - self.sums["errors"] / variance if spread else float("nan")


def _readouts(
    model: SplitModel, clean: CleanRun, finals: Sequence[Float[Tensor, "batch position d_model"]]
) -> Iterator[dict[str, Float[Tensor, "token"]]]:
    """Losses and KL of each token, for each of these changes of the final hidden states."""
    # The first change is zero: readouts of the clean run.
    changes = LateActivations(torch.stack([torch.zeros_like(finals[0]), *finals]), {})
    found = compute_readouts(model, clean, changes, [Readout("kl"), Readout("loss")], range(clean.span.stop))
    for loss, kl in zip(found["loss"][1:], found["kl"][1:], strict=True):
        yield {"clean_loss": found["loss"][0, :, :-1].flatten(), "loss": loss[:, :-1].flatten(), "kl": kl.flatten()}


def not_boundary(ids: Int[Tensor, "sequence position"], boundary: int | None) -> Bool[Tensor, "sequence position"]:
    """True at all but boundary positions.

    Raises:
        TiltmeterError: there are no others.
    """
    counted = allowed(boundary_mask(ids, boundary), "out")
    if not bool(counted.any()):
        raise TiltmeterError(
            f"An SAE cannot be evaluated on {len(ids)} sequences that have only boundary positions (the first position "
            "of each is one); give longer sequences."
        )
    return counted


def _slices(count: int, size: int) -> Iterator[slice]:
    for begin in range(0, count, size):
        yield slice(begin, begin + size)


def finite_or_none(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The same for JSON, which has no NaN and no infinity: these become None, and what is no number stays."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in numbers.items()
    }
