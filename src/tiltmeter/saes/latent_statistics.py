"""Statistics of an SAE on real activations: how often each latent fires, and the SAE's reconstruction error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from tiltmeter.analysis.massive import ordinary
from tiltmeter.analysis.moments import Moments
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy, allowed, boundary_mask
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.progress import progress
from tiltmeter.saes.at_site import SAEAtSite, mark
from tiltmeter.saes.synthetic import Synthesis

BATCH = 32
"""Sequences in a pass."""


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of an SAE on the real activations at its site."""

    count: int
    """Number of tokens the statistics are computed from."""
    firing: Int64[Tensor, "latent"]
    """Number of tokens on which each latent fires (f > 0)."""
    fewest: int
    """The smallest number of distinct latents that fire in any one sequence."""
    explained_variance: float
    """1 - Σ‖x - x̂‖² / Σ‖x - mean x‖²; NaN if all activations are equal."""
    distance: float
    """Mean reconstruction distance ε = ‖x - x̂‖, L2."""
    linear: Float64[Tensor, "d_site d_site"]
    """A in the least-squares prediction x A + b of the error x̂ - x from x (Engels et al. 2024, "SAE dark matter")."""
    offset: Float64[Tensor, "d_site"]
    """b in the same prediction."""

    @property
    def frequency(self) -> Float64[Tensor, "latent"]:
        """Fraction of tokens on which each latent fires."""
        return self.firing.double() / self.count

    @property
    def alive(self) -> Bool[Tensor, "latent"]:
        """Mask of the latents that fire at least once."""
        return self.firing > 0

    @property
    def l0(self) -> float:
        """Mean number of latents that fire per token."""
        return int(self.firing.sum()) / self.count

    def predicted_error(self, x: Float[Tensor, "*token d_site"]) -> Float64[Tensor, "*token d_site"]:
        """Predict the SAE's error from x: its linear component."""
        return x.double() @ self.linear.to(x.device) + self.offset.to(x.device)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Convert to named arrays, for a run directory."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> LatentStatistics:
        """Invert `to_arrays`."""
        return cls(
            count=int(arrays["count"]),
            firing=torch.from_numpy(arrays["firing"]),
            fewest=int(arrays["fewest"]),
            explained_variance=float(arrays["explained_variance"]),
            distance=float(arrays["distance"]),
            linear=torch.from_numpy(arrays["linear"]),
            offset=torch.from_numpy(arrays["offset"]),
        )


@dataclass(frozen=True)
class SAEWithStatistics:
    """An SAE at a site, with its statistics on the activations there."""

    at: SAEAtSite
    counted: LatentStatistics | None
    """None if nothing in the run needs latent statistics: computing them takes a pass over many tokens."""
    synthesis: Synthesis = field(default_factory=Synthesis)
    """Parameters for synthesising activations from its latents."""

    @property
    def latents(self) -> LatentStatistics:
        """The latent statistics, which must have been computed."""
        assert self.counted is not None, f"{self.at.name}: latents were not counted; see `counts_latents` in perturb/"
        return self.counted


def fit_latents(
    model: SplitModel,
    tokens: TokenSet,
    site: Site,
    bos: BosPolicy,
    saes: Mapping[str, SAEAtSite],
    massive_above: float = math.inf,
    batch: int = BATCH,
) -> dict[str, LatentStatistics]:
    """Run the model on `tokens` once, and compute the statistics of every SAE, under the same names.

    Only tokens that `bos.statistics` counts and whose activations have norms up to `massive_above` are used, as in the
    statistics of the site.

    Raises:
        TiltmeterError: an SAE's width differs from the site's; no token is counted.
    """
    mask = allowed(boundary_mask(tokens.ids, tokens.boundary), bos.statistics)
    if not bool(mask.any()):
        raise TiltmeterError(
            f"Latent statistics need tokens, but {tokens.name} contains only boundary tokens; give longer sequences."
        )
    totals = count_latents(model, tokens, site, mask, saes, massive_above, batch)
    return {name: one.statistics() for name, one in totals.items()}


def count_latents(
    model: SplitModel,
    tokens: TokenSet,
    site: Site,
    counted: Bool[Tensor, "sequence position"],
    saes: Mapping[str, SAEAtSite],
    massive_above: float = math.inf,
    batch: int = BATCH,
) -> dict[str, Totals]:
    """Run the model on `tokens` once: every SAE's sums over the counted ones, under the same names."""
    totals = {name: Totals(sae) for name, sae in saes.items()}
    for begin in progress(range(0, len(tokens.ids), batch), "latents"):
        rows = slice(begin, begin + batch)
        x = model.activation(tokens.ids[rows], site)
        of_batch = (counted[rows] & ordinary(x, massive_above)).to(x.device)
        for one in totals.values():
            one.update(x, of_batch)
    return totals


class Totals:
    """Running sums over batches, in float64."""

    def __init__(self, sae: SAEAtSite) -> None:
        self.sae = sae
        self.firing = torch.zeros(sae.size, dtype=torch.int64)
        self.fewest = sae.size
        self.distances = 0.0
        self.joint = Moments(2 * sae.sae.decoder.shape[1])
        """Moments of x and the error, concatenated."""

    def update(self, x: Float[Tensor, "batch position d_site"], counted: Bool[Tensor, "batch position"]) -> None:
        """Add the counted tokens of some sequences."""
        self.sae.check_width(x.shape[-1])
        flat, owner = x[counted], counted.nonzero()[:, 0]
        fired = torch.zeros(len(x), self.sae.size, dtype=torch.bool, device=self.sae.sae.decoder.device)
        for part, latents in self.sae.pieces(flat):
            mark(fired, owner[part], latents)
            self.firing += (latents > 0).sum(0).cpu()
            error = self.sae.decode(latents, flat[part]) - flat[part]
            self.distances += float(error.double().norm(dim=-1).sum())
            self.joint.update(torch.cat([flat[part], error], -1).cpu())
        if len(owner):
            self.fewest = min(self.fewest, int(fired[owner.unique().to(fired.device)].sum(-1).min()))

    def statistics(self) -> LatentStatistics:
        """Compute the statistics of all tokens added so far."""
        width, n, mean = len(self.joint.mean) // 2, self.joint.count, self.joint.mean
        scatter = self.joint.scatter
        x_x, x_e, e_e = scatter[:width, :width], scatter[:width, width:], scatter[width:, width:]
        spread, errors = float(x_x.trace()), float(e_e.trace() + n * mean[width:].square().sum())
        # A centred stream's scatter matrix is singular up to float32 rounding, which must not be inverted.
        linear = torch.linalg.pinv(x_x, rtol=1e-10, hermitian=True) @ x_e
        return LatentStatistics(
            count=n,
            firing=self.firing,
            fewest=self.fewest,
            explained_variance=1 - errors / spread if spread else float("nan"),
            distance=self.distances / n,
            linear=linear,
            offset=mean[width:] - mean[:width] @ linear,
        )
