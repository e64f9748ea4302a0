"""Statistics of real activations at a site: mean, covariance, a pool of samples, and typical distances.

`SiteStatistics` is the input from which sources are built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from tiltmeter.analysis.massive import MassiveCount, count_massive, norms_of, ordinary
from tiltmeter.analysis.moments import Moments, Spectrum, spectrum_of
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy, MassivePolicy, allowed, boundary_mask
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.sources import Gaussian, Isotropic, Real
from tiltmeter.runs.progress import progress
from tiltmeter.runs.rng import Address, uniform

DEFAULT_POLICY = MassivePolicy()

BATCH = 32
"""Sequences in a pass."""

PAIRS = 100_000
"""Pairs of real activations whose mean distance is taken."""

TRIMMED = 0.01
"""Fraction of the pool that `trimmed` leaves out."""


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
    """Mean L2 distance between real activations of different sequences; NaN if all are of one."""
    norm: float
    """Mean L2 norm of the activations in the pool."""
    massive: MassiveCount
    """How many activations are massive, whether or not they are in these statistics."""

    @cached_property
    def spectrum(self) -> Spectrum:
        """How the covariance is spread over directions."""
        return spectrum_of(self.covariance)

    @property
    def isotropic(self) -> Isotropic:
        """The source of standard normal vectors."""
        return Isotropic(len(self.mean))

    @cached_property
    def gaussian(self) -> Gaussian:
        """The source of Gaussian vectors with the mean and covariance of real activations."""
        return Gaussian.fit(self.mean, self.covariance)

    @cached_property
    def trimmed(self) -> Gaussian:
        """The source of Gaussian vectors with mean and covariance of the pool without its outermost 1 % (rounded up).

        Outermost by Euclidean distance from the coordinatewise median, as in the first step of BACON (Billor, Hadi &
        Velleman 2000, version 2); no factor makes up for the variance that is cut off. More than 1 % of outliers stay.
        """
        return Gaussian.fit(self._innermost.mean(0), torch.cov(self._innermost.T))

    @property
    def trimmed_spectrum(self) -> Spectrum:
        """How the covariance of `trimmed` is spread over directions."""
        return spectrum_of(torch.cov(self._innermost.T))

    @cached_property
    def _innermost(self) -> Float64[Tensor, "kept d_site"]:
        x = self.pool.double()
        distance = (x - x.median(0).values).norm(dim=-1)
        dropped = math.ceil(TRIMMED * len(x)) if TRIMMED * len(x) >= 1 else 0
        return x[distance.argsort(stable=True)[: len(x) - dropped]]

    @property
    def real(self) -> Real:
        """The source of real activations, drawn from the pool."""
        return Real(self.pool, self.pool_sequences)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Convert to named arrays, for a run directory."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

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
            massive=_massive_count(arrays["massive"]),
        )


def fit_statistics(
    model: SplitModel,
    tokens: TokenSet,
    site: Site,
    bos: BosPolicy,
    pool_size: int,
    seed: int,
    batch: int = BATCH,
    positions: tuple[int, ...] | None = None,
    massive: MassivePolicy = DEFAULT_POLICY,
) -> SiteStatistics:
    """Run the model on `tokens` and compute the statistics of its activations at `site`.

    The pool is a uniform random subset of `pool_size` tokens (or all, if there are fewer), less the massive ones. Only
    tokens at `positions` (None for all) that both policies allow are used.

    Raises:
        TiltmeterError: there are fewer than two tokens; the pool holds one sequence's of several.
    """
    mask = counted_tokens(tokens, bos, positions)
    if (found := int(mask.sum())) < 2:
        raise TiltmeterError(
            f"Statistics need at least two tokens, and {tokens.name} gave {found} (boundary tokens are "
            f"{bos.statistics}); give more or longer sequences."
        )
    chosen = _choose(mask, pool_size, seed)
    sums, pool = read_activations(model, tokens, site, mask, chosen, massive, batch)
    moments, counted = sums.finish(mask)
    entries, owners = torch.cat(pool), torch.arange(len(tokens.ids))[:, None].expand_as(chosen)[chosen]
    kept = ordinary(entries, massive.largest_counted(counted.limit))
    entries, owners = entries[kept], owners[kept]
    return SiteStatistics(
        count=moments.count,
        mean=moments.mean,
        covariance=moments.covariance(),
        pool=entries,
        pool_sequences=owners,
        pair_distance=mean_pair_distance(Real(entries, owners), seed) if int(mask.any(1).sum()) > 1 else math.nan,
        norm=float(entries.double().norm(dim=-1).mean()),
        massive=counted,
    )


def counted_tokens(
    tokens: TokenSet, bos: BosPolicy, positions: tuple[int, ...] | None
) -> Bool[Tensor, "sequence position"]:
    """Mask of the tokens that count in statistics, unless their activations are massive."""
    mask = allowed(boundary_mask(tokens.ids, tokens.boundary), bos.statistics)
    if positions is not None:
        mask &= torch.isin(torch.arange(mask.shape[1]), torch.tensor(positions))
    return mask


def read_activations(
    model: SplitModel,
    tokens: TokenSet,
    site: Site,
    counted: Bool[Tensor, "sequence position"],
    chosen: Bool[Tensor, "sequence position"],
    massive: MassivePolicy = DEFAULT_POLICY,
    batch: int = BATCH,
) -> tuple[Sums, list[Float[Tensor, "entry d_site"]]]:
    """Run the model on `tokens`: the sums over the counted ones, and the activations of the chosen ones."""
    sums, pool = Sums(massive), []
    for begin in progress(range(0, len(tokens.ids), batch), "statistics"):
        rows = slice(begin, begin + batch)
        x = model.activation(tokens.ids[rows], site).cpu()
        sums.update(x, counted[rows])
        pool.append(x[chosen[rows]])
    return sums, pool


class Sums:
    """Moments of the activations that count, in one pass.

    Which are massive is known only at the end, when the median of all norms is. Until then, those that are long by the
    median of the first batch that has any are put aside.
    """

    def __init__(self, policy: MassivePolicy) -> None:
        self.policy = policy
        self.norms: list[Tensor] = []
        self.moments: Moments | None = None
        self.aside: list[Tensor] = []
        self.certain: float | None = math.inf if policy.statistics == "in" else None
        """Norms below this are not massive, unless the first batch has a median more than twice that of all."""

    def update(self, x: Float[Tensor, "batch position d_site"], counted: Bool[Tensor, "batch position"]) -> None:
        """Add some sequences."""
        norms, taken = norms_of(x), x[counted]
        self.norms.append(norms)
        self.moments = self.moments or Moments(x.shape[-1])
        if not len(taken):
            return
        if self.certain is None:
            self.certain = self.policy.ratio / 2 * float(norms[counted].median())
        short = norms[counted] <= self.certain
        self.moments.update(taken[short])
        self.aside.append(taken[~short])

    def finish(self, counted: Bool[Tensor, "sequence position"]) -> tuple[Moments, MassiveCount]:
        """The moments of all activations that count, and the count of massive ones."""
        assert self.moments is not None and self.certain is not None
        found, aside = count_massive(torch.cat(self.norms), counted, self.policy.ratio), torch.cat(self.aside)
        if math.isfinite(self.certain) and self.certain > found.limit:
            raise TiltmeterError(
                f"Activations of the first sequences have a median norm of {2 * self.certain / self.policy.ratio:.3g}, "
                f"those of all {found.median:.3g}, so massive ones were counted; shuffle the sequences."
            )
        self.moments.update(aside[ordinary(aside, self.policy.largest_counted(found.limit))])
        return self.moments, found


def _massive_count(values: np.ndarray) -> MassiveCount:
    median, limit, largest, *counts = values.tolist()
    return MassiveCount(median, limit, largest, *map(int, counts))


def concentrated(statistics: SiteStatistics, policy: MassivePolicy) -> str | None:
    """A warning if one direction holds more than half of the covariance's trace, and what to do about it."""
    if not statistics.spectrum.is_concentrated:
        return None
    return f"{statistics.spectrum.sentence} {statistics.massive.sentence} {_remedy(statistics, policy)}"


def _remedy(statistics: SiteStatistics, policy: MassivePolicy) -> str:
    if policy.statistics == "in" and statistics.massive.first + statistics.massive.later:
        return "Leave massive activations out of the statistics (--massive-statistics out)."
    trimmed = statistics.trimmed_spectrum
    if not trimmed.is_concentrated:
        return f"Less than 1 % of the tokens cause it: use cov-trimmed directions (there it is {trimmed.largest:.0%})."
    return (
        f"It is not the work of a few tokens (without the outermost 1 % it is {trimmed.largest:.0%}): cov-random "
        "vectors of different draws are much alike at this site."
    )


def mean_pair_distance(real: Real, seed: int) -> float:
    """Estimate the mean L2 distance between real activations of different sequences from at most `PAIRS` pairs.

    Lee & Heimersheim 2024 report 81.59 for GPT-2 small at `blocks.6.hook_resid_pre`.

    Raises:
        TiltmeterError: all activations come from one sequence.
    """
    if real.sequences[0] == real.sequences[-1]:
        raise TiltmeterError(
            f"All {len(real.pool)} real activations of the pool are of one sequence, and distances are taken between "
            "sequences; give more sequences, or a larger pool."
        )
    total, count = 0.0, 0
    for entries in torch.arange(PAIRS).split(4096):
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
