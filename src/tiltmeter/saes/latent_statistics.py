"""What an SAE does on real activations: which latents fire how often, how far its output is from x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from tiltmeter.analysis.moments import Moments
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy, allowed, boundary_mask
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.progress import progress
from tiltmeter.saes.at_site import AtSite, mark
from tiltmeter.saes.synthetic import Synthesis


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of an SAE on the real activations at its site."""

    count: int
    """How many tokens they are of."""
    firing: Int64[Tensor, "latent"]
    """On how many of them each latent fires (f > 0)."""
    fewest: int
    """The least number of different latents that fire in one sequence."""
    explained_variance: float
    """1 - Σ‖x - x̂‖² / Σ‖x - mean x‖²; NaN where all activations are equal."""
    distance: float
    """Mean reconstruction distance ε = ‖x - x̂‖, L2."""
    linear: Float64[Tensor, "d_site d_site"]
    """A of the least-squares prediction x A + b of the error x̂ - x from x (Engels et al. 2024, "SAE dark matter")."""
    offset: Float64[Tensor, "d_site"]
    """b of the same."""

    @property
    def frequency(self) -> Float64[Tensor, "latent"]:
        """The part of the tokens on which each latent fires."""
        return self.firing.double() / self.count

    @property
    def alive(self) -> Bool[Tensor, "latent"]:
        """The latents that fire at least once."""
        return self.firing > 0

    @property
    def l0(self) -> float:
        """Mean number of latents that fire on a token."""
        return int(self.firing.sum()) / self.count

    def predicted_error(self, x: Float[Tensor, "*token d_site"]) -> Float64[Tensor, "*token d_site"]:
        """The part of the SAE's error that is linear in x."""
        return x.double() @ self.linear.to(x.device) + self.offset.to(x.device)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, for a run directory."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> LatentStatistics:
        """The inverse of `to_arrays`."""
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
class BoundSAE:
    """An SAE at a site, and what it does on the activations there."""

    at: AtSite
    counted: LatentStatistics | None
    """None where nothing in the run asks which latents fire how often: counting takes a pass over many tokens."""
    synthesis: Synthesis = field(default_factory=Synthesis)
    """How synthetic activations are made of its latents."""

    @property
    def latents(self) -> LatentStatistics:
        """The statistics of its latents."""
        assert self.counted is not None, f"{self.at.name}: latents were not counted; see `counts_latents` in perturb/"
        return self.counted


def fit_latents(
    model: SplitModel, tokens: TokenSet, site: Site, bos: BosPolicy, saes: Mapping[str, AtSite], batch: int = 32
) -> dict[str, LatentStatistics]:
    """Run the model on `tokens`, once for all of `saes`, and take the statistics of each, by the same names.

    Tokens are those that `bos.statistics` counts, as for the statistics of the site.

    Raises:
        TiltmeterError: an SAE of another width than the site's; no token is counted.
    """
    mask = allowed(boundary_mask(tokens.ids, tokens.boundary), bos.statistics)
    if not bool(mask.any()):
        raise TiltmeterError(
            f"Statistics of latents need tokens, and {tokens.name} has none but boundary tokens; give longer sequences."
        )
    totals = {name: _Totals(sae) for name, sae in saes.items()}
    for begin in progress(range(0, len(tokens.ids), batch), "latents"):
        rows = slice(begin, begin + batch)
        x = model.start(tokens.ids[rows], site).activation
        for one in totals.values():
            one.update(x, mask[rows].to(x.device))
    return {name: one.statistics() for name, one in totals.items()}


class _Totals:
    """Sums over batches, float64."""

    def __init__(self, sae: AtSite) -> None:
        self.sae = sae
        self.firing = torch.zeros(sae.size, dtype=torch.int64)
        self.fewest = sae.size
        self.distances = 0.0
        self.joint = Moments(2 * sae.sae.decoder.shape[1])
        """Of x and the error, side by side."""

    def update(self, x: Float[Tensor, "batch position d_site"], counted: Bool[Tensor, "batch position"]) -> None:
        """Take in the counted tokens of some sequences."""
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
        """Of all that was taken in."""
        width, n, mean = len(self.joint.mean) // 2, self.joint.count, self.joint.mean
        scatter = self.joint.scatter
        x_x, x_e, e_e = scatter[:width, :width], scatter[:width, width:], scatter[width:, width:]
        spread, errors = float(x_x.trace()), float(e_e.trace() + n * mean[width:].square().sum())
        # A centred stream's scatter is singular but for rounding in float32, which must not be inverted.
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
