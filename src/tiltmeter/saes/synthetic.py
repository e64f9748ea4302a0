"""Synthetic latent vectors built from those of a real token: the two syntheses of Giglemiani et al. 2024.

Both reassign the activation of every active latent to another latent, so a token keeps its L0 and its activation
values. `baseline` picks latents that fire about as often; `structured` preserves the cosines of the other latents with
the strongest one. The result is written to a new vector: reassigning in place could overwrite an activation that a
latent has just received.

Distance between latents is the difference of their sparsities. Ties are broken by the list sorted by sparsity and
index: first fewer places away, then the rarer latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.config import Configuration


class RankingOptions(Configuration):
    """How the sparsities of latents are compared."""

    sparsity_scale: Literal["linear", "log10"] = "linear"
    """`linear`: the fraction of tokens on which a latent fires, as published. `log10`: its logarithm."""
    exclude_dead: bool = False
    """Never reassign an activation to a dead latent. In the published method, dead latents are candidates."""


class BaselineOptions(RankingOptions):
    """Parameters of `baseline`. Defaults are as published."""

    top_k: PositiveInt = 10
    """The new latent is drawn from this many nearest ones."""


class StructuredOptions(RankingOptions):
    """Parameters of `structured`. Defaults are as published."""

    pool: PositiveInt = 100
    """The new strongest latent is chosen from this many nearest ones."""
    similarity: float = Field(default=0.42, ge=-1, le=1)
    """Target cosine between its decoder row and the old one's."""
    rows: Literal["raw", "measured"] = "raw"
    """The decoder rows of all cosines. `raw`: as the SAE has them, as published. `measured`: as the site is measured,
    that is, centred where the stream is (what the model sees of them)."""


class Synthesis(Configuration):
    """Parameters of both syntheses."""

    baseline: BaselineOptions = BaselineOptions()
    structured: StructuredOptions = StructuredOptions()


def baseline(
    latents: Float[Tensor, "token latent"],
    frequency: Float64[Tensor, "latent"],
    chance: Float64[Tensor, "token turn"],
    options: BaselineOptions,
) -> Float[Tensor, "token latent"]:
    """Reassign each activation to a latent that fires about as often (Giglemiani et al. 2024, "baseline").

    Active latents are processed in ascending order. The new latent is drawn uniformly from the `top_k` nearest in
    sparsity, excluding the old latent and those already chosen. If fewer are left, it is drawn from those.

    Args:
        latents: non-negative activations.
        frequency: the fraction of tokens on which each latent fires.
        chance: uniform numbers in [0, 1). A token uses one for each active latent.
        options: parameters.

    Raises:
        TiltmeterError: a token has so many active latents that no unused candidate is left for one of them.
    """
    order, active = _Order.by(frequency.to(latents.device), options), active_ids(latents)
    chance = chance.to(latents.device)
    result, taken = torch.zeros_like(latents), torch.zeros_like(latents, dtype=torch.bool)
    for turn in range(active.shape[1]):
        rows = (active[:, turn] >= 0).nonzero()[:, 0]
        old = active[rows, turn]
        near, number = order.nearest(old, options.top_k, _Taken(taken, rows, turn))
        _check_left(number > 0, active, order)
        new = near.gather(1, (chance[rows, turn] * number).long()[:, None])[:, 0]
        result[rows, new], taken[rows, new] = latents[rows, old], True
    return result


def structured(
    latents: Float[Tensor, "token latent"],
    frequency: Float64[Tensor, "latent"],
    decoder: Float[Tensor, "latent d_site"],
    options: StructuredOptions,
) -> Float[Tensor, "token latent"]:
    """Reassign activations while preserving cosines with the strongest latent (Giglemiani et al. 2024).

    The strongest latent t is replaced by t'. Among the `pool` latents nearest to t in sparsity (or all others, if there
    are fewer), t' is the one whose decoder row has the cosine nearest to `similarity` with t's. Each other active
    latent, in ascending order, is then replaced by the unused latent whose cosine with t' is nearest to its own cosine
    with t. Ties go to the latent nearer to t in sparsity when choosing t', and to the lower index otherwise.

    Args:
        latents: non-negative activations.
        frequency: the fraction of tokens on which each latent fires.
        decoder: one row per latent, of any norm. A zero row has cosine 0 with every other.
        options: parameters.

    Raises:
        TiltmeterError: a token has so many active latents that no unused candidate is left for one of them.
    """
    order, active = _Order.by(frequency.to(latents.device), options), active_ids(latents)
    unit = normalize(decoder.to(latents.device).double(), dim=-1)  # float32 near ties depend on the batch size
    result = torch.zeros_like(latents)
    some = (latents > 0).any(-1).nonzero()[:, 0]
    tops, owner = latents[some].argmax(-1).unique(return_inverse=True)
    cosines = unit[tops] @ unit.T
    heads, found = _heads(tops, cosines, order, options)
    _check_left(found, active, order)
    wanted = cosines[owner].gather(1, active[some].clamp(min=0))
    offered = unit[heads] @ unit.T
    taken = ~order.allowed.repeat(len(some), 1)
    taken[torch.arange(len(some)), heads[owner]] = True
    for turn in range(active.shape[1]):
        rows = (active[some, turn] >= 0).nonzero()[:, 0]
        old = active[some[rows], turn]
        gap = offered[owner[rows]].sub_(wanted[rows, turn, None]).abs_().masked_fill_(taken[rows], torch.inf)
        least = gap.min(-1)
        is_top = old == tops[owner[rows]]
        _check_left(is_top | least.values.isfinite(), active, order)
        new = torch.where(is_top, heads[owner[rows]], least.indices)
        result[some[rows], new], taken[rows, new] = latents[some[rows], old], True
    return result


def active_ids(latents: Float[Tensor, "token latent"]) -> Int64[Tensor, "token turn"]:
    """Return the active latents (f > 0) of each token in ascending order, padded with -1."""
    fires = latents > 0
    token, latent = fires.nonzero(as_tuple=True)
    count = fires.sum(-1)
    place = torch.arange(len(token), device=token.device) - (count.cumsum(0) - count)[token]
    ids = torch.full((len(latents), int(count.max()) if len(count) else 0), -1, device=latents.device)
    ids[token, place] = latent
    return ids


def _heads(
    tops: Int64[Tensor, "top"], cosines: Float64[Tensor, "top latent"], order: _Order, options: StructuredOptions
) -> tuple[Int64[Tensor, "top"], Bool[Tensor, "top"]]:
    """Return the replacement of each strongest latent, and whether one exists."""
    none = torch.zeros(1, len(order.sparsity), dtype=torch.bool, device=tops.device)
    near, number = order.nearest(tops, options.pool, _Taken(none, torch.zeros_like(tops), 0))
    missing = torch.arange(near.shape[1], device=tops.device) >= number[:, None]
    gap = (cosines.gather(1, near) - options.similarity).abs().masked_fill(missing, torch.inf)
    return near.gather(1, gap.argmin(-1, keepdim=True))[:, 0], number > 0


@dataclass(frozen=True)
class _Taken:
    """Latents that are already used."""

    mask: Bool[Tensor, "token latent"]
    rows: Int64[Tensor, "old"]
    """The token of each latent to be replaced."""
    most: int
    """The largest number of latents used at any one token."""


@dataclass(frozen=True)
class _Order:
    """The candidate latents, sorted by sparsity."""

    sparsity: Float64[Tensor, "latent"]
    allowed: Bool[Tensor, "latent"]
    ids: Int64[Tensor, "allowed"]
    """Candidates by ascending sparsity, then index."""
    place: Int64[Tensor, "latent"]
    """Position of each latent in `ids`, or where it would be inserted."""

    @classmethod
    def by(cls, frequency: Float64[Tensor, "latent"], options: RankingOptions) -> _Order:
        """Sort the latents by how often they fire.

        Raises:
            TiltmeterError: all latents are dead, and dead ones are excluded.
        """
        # 1e-10 as in the published sparsities, where a dead latent has log10 sparsity -10
        sparsity = frequency if options.sparsity_scale == "linear" else (frequency + 1e-10).log10()
        allowed = frequency > 0 if options.exclude_dead else torch.ones_like(frequency, dtype=torch.bool)
        if not bool(allowed.any()):
            raise TiltmeterError(
                "No latent of the SAE fired on the tokens of the statistics, so none can receive an activation; check "
                "that it belongs to this model and site."
            )
        every = frequency.argsort(stable=True)
        before = allowed[every].cumsum(0) - allowed[every].long()
        return cls(sparsity, allowed, every[allowed[every]], before.gather(0, every.argsort()))

    def nearest(
        self, old: Int64[Tensor, "old"], count: int, taken: _Taken
    ) -> tuple[Int64[Tensor, "old near"], Int64[Tensor, "old"]]:
        """Return the `count` nearest unused latents of each, nearest first, and how many there are.

        The search reaches `count` + used + 1 places on either side, since at most that many precede the last one.
        """
        reach = min(count + taken.most + 1, len(self.sparsity))
        away = torch.arange(1, reach + 1, device=old.device)
        offsets = torch.cat([away.new_zeros(1), torch.stack([-away, away], 1).flatten()])
        places = self.place[old][:, None] + offsets
        near = self.ids[places.clamp(0, len(self.ids) - 1)]
        exists = (places >= 0) & (places < len(self.ids)) & (near != old[:, None])
        free = exists & ~taken.mask[taken.rows[:, None], near]
        distance = (self.sparsity[near] - self.sparsity[old][:, None]).abs().masked_fill(~free, torch.inf)
        ranking = distance.sort(dim=-1, stable=True).indices[:, :count]
        return near.gather(1, ranking), free.sum(-1).clamp(max=count)


def _check_left(found: Bool[Tensor, "old"], active: Int64[Tensor, "token turn"], order: _Order) -> None:
    if not bool(found.all()):
        raise TiltmeterError(
            f"Up to {active.shape[1]} latents are active at a token, and the {len(order.ids)} that could receive their "
            "activations are too few, since none may receive two or its own; use a sparser or wider SAE."
        )
