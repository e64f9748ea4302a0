"""Statistics of real activations at a site: mean, covariance, a pool of samples, and typical distances.

`SiteStatistics` is the input from which sources are built.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from tiltmeter.analysis.moments import Moments
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy, allowed, boundary_mask
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.sources import Gaussian, Isotropic, Real
from tiltmeter.runs.progress import progress
from tiltmeter.runs.rng import Address, uniform


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of the real activations at one site."""

    count: int
    """Number of activations behind the mean and covariance."""
    mean: Float64[Tensor, "d_site"]
    covariance: Float64[Tensor, "d_site d_site"]
    pool: Float[Tensor, "entry d_site"]
    pool_sequences: Int64[Tensor, "entry"]
    """Index of the sequence each pool entry comes from, ascending."""
    pair_distance: float
    """Mean L2 distance between real activations of different sequences."""
    norm: float
    """Mean L2 norm of the activations in the pool."""

    @property
    def isotropic(self) -> Isotropic:
        """The source of standard normal vectors."""
        return Isotropic(len(self.mean))

    @property
    def gaussian(self) -> Gaussian:
        """The source of Gaussian vectors with the mean and covariance of real activations."""
        return Gaussian.fit(self.mean, self.covariance)

    @property
    def real(self) -> Real:
        """The source of real activations, drawn from the pool."""
        return Real(self.pool, self.pool_sequences)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Convert to named arrays, for a run directory."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> SiteStatistics:
        """Invert `to_arrays`."""
        return cls(
            count=int(arrays["count"]),
            mean=torch.from_numpy(arrays["mean"]),
            covariance=torch.from_numpy(arrays["covariance"]),
            pool=torch.from_numpy(arrays["pool"]),
            pool_sequences=torch.from_numpy(arrays["pool_sequences"]),
            pair_distance=float(arrays["pair_distance"]),
            norm=float(arrays["norm"]),
        )


def fit_statistics(
    model: SplitModel,
    tokens: TokenSet,
    site: Site,
    bos: BosPolicy,
    pool_size: int,
    seed: int,
    batch: int = 32,
    positions: tuple[int, ...] | None = None,
) -> SiteStatistics:
    """Run the model on `tokens` and compute the statistics of its activations at `site`.

    The pool is a uniform random subset of `pool_size` tokens (or all, if there are fewer). Only tokens at `positions`
    (None for all) that the boundary policy allows are used.

    Raises:
        TiltmeterError: the tokens or the pool come from fewer than two sequences, so there is no activation of another.
    """
    mask = allowed(boundary_mask(tokens.ids, tokens.boundary), bos.statistics)
    if positions is not None:
        mask &= torch.isin(torch.arange(mask.shape[1]), torch.tensor(positions))
    if (found := int(mask.any(1).sum())) < 2:
        raise TiltmeterError(
            f"Statistics need tokens of at least two sequences, and {tokens.name} gave {found} (boundary tokens are "
            f"{bos.statistics}); give more or longer sequences."
        )
    chosen = _choose(mask, pool_size, seed)
    moments: Moments | None = None
    pool: list[Tensor] = []
    for begin in progress(range(0, len(tokens.ids), batch), "statistics"):
        rows = slice(begin, begin + batch)
        x = model.start(tokens.ids[rows], site).activation.cpu()
        moments = moments or Moments(x.shape[-1])
        moments.update(x[mask[rows]])
        pool.append(x[chosen[rows]])
    assert moments is not None
    entries = torch.cat(pool)
    owners = torch.arange(len(tokens.ids))[:, None].expand_as(chosen)[chosen]
    return SiteStatistics(
        count=moments.count,
        mean=moments.mean,
        covariance=moments.covariance(),
        pool=entries,
        pool_sequences=owners,
        pair_distance=mean_pair_distance(Real(entries, owners), seed),
        norm=float(entries.double().norm(dim=-1).mean()),
    )


def mean_pair_distance(real: Real, seed: int, pairs: int = 100_000) -> float:
    """Estimate the mean L2 distance between real activations of different sequences from at most `pairs` pairs.

    Lee & Heimersheim 2024 report 81.59 for GPT-2 small at `blocks.6.hook_resid_pre`.

    Raises:
        TiltmeterError: all activations come from one sequence.
    """
    if real.sequences[0] == real.sequences[-1]:
        raise TiltmeterError(
            f"The pool of {len(real.pool)} real activations holds only one sequence's; make the pool larger."
        )
    total, count = 0.0, 0
    for entries in torch.arange(pairs).split(4096):
        # Pairs use the address of a position. Pairs within one sequence are dropped; all others stay equally likely.
        address = Address(seed, "mean pair distance", torch.zeros(1, dtype=torch.int64), entries)
        one, other = (uniform(address, "pair", 2)[0] * len(real.pool)).long().unbind(-1)
        apart = real.sequences[one] != real.sequences[other]
        total += float((real.pool[one] - real.pool[other])[apart].double().norm(dim=-1).sum())
        count += int(apart.sum())
    return total / count


def _choose(mask: Tensor, size: int, seed: int) -> Tensor:
    """Choose `size` of the allowed tokens uniformly at random, independently of the batch size."""
    address = Address(seed, "pool", torch.arange(mask.shape[0]), torch.arange(mask.shape[1]))
    priority = uniform(address, "priority", 1)[..., 0].masked_fill(~mask, 2.0)
    size = min(size, int(mask.sum()))
    return (priority <= priority.flatten().kthvalue(size).values) & mask
