"""How well an SAE explains activations in several ways of use, compared token by token.

Two ways of use are compared on the same tokens: the difference of what they leave unexplained is averaged over
stretches of tokens, and a paired t-test says whether it is more than chance. Paired, because what an SAE explains
varies more between texts than between two layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from scipy import stats
from torch import Tensor

from tiltmeter.analysis.massive import MASSIVE_RATIO, count_massive, norms_of, ordinary
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.evaluation import not_boundary

STRETCH = 32
"""Tokens of a stretch. Neighbouring tokens are alike, so tokens are no independent samples. Stretches are closer to it,
but those of one sequence are alike, too: on nano, correlations up to 0.4 make a mean's variance up to 1.7 times as
large as the test assumes."""

FEWEST = 4
"""Fewest stretches from which chance can be judged."""


@dataclass(frozen=True)
class Fit:
    """Sparsity and reconstruction of an SAE. Boundary positions and massive activations do not count."""

    l0: float
    """Active latents (above zero) per token."""
    explained_variance: float
    """As in `SAEMetrics`."""
    slope: float
    """Of activations regressed on reconstructions, both minus their means: below one if reconstructions are too long.
    Shrinkage by an L1 norm makes them too short. NaN if reconstructions are all equal."""
    unexplained: Float64[Tensor, "stretch"]
    """Squared errors of each stretch over its share of the variance. Their mean is 1 - explained variance."""

    def beats(self, used: Fit, margin: float, level: float) -> bool:
        """Whether `used` leaves at least `margin` times as much unexplained on the same tokens, and more beyond chance.

        A one-sided paired t-test over stretches decides what chance is, at this level, which is nominal (`STRETCH`):
        the margin must make up for it. With fewer than `FEWEST` stretches, nothing is decided.
        """
        if not math.isfinite(self.explained_variance) or len(self.unexplained) < FEWEST:
            return False
        if not math.isfinite(used.explained_variance):
            return True
        worse = used.unexplained - self.unexplained
        mean, error = float(worse.mean()), float(worse.std()) / math.sqrt(len(worse))
        beyond_chance = mean > error * float(stats.t.isf(level, len(worse) - 1))
        return beyond_chance and float(used.unexplained.mean()) >= margin * float(self.unexplained.mean())


@torch.no_grad()
def fits(
    model: SplitModel,
    places: Sequence[SAEAtSite],
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    batch: int = 8,
) -> list[Fit]:
    """The fit of several SAEs, or of one at several sites and in several streams, from one forward pass per batch.

    Raises:
        TiltmeterError: all positions are boundary positions.
    """
    counted = not_boundary(ids, boundary).to(model.device)
    raw, sites = model.measured_in("raw"), list({place.site for place in places})
    first = Site(0, "resid_pre")
    seen = [raw.start(rows, first, sites).late.sites for rows in ids.split(batch)]
    at = {site: torch.cat([one[site] for one in seen])[counted] for site in sites}
    return [_fit(place, place.centre(at[place.site])) for place in places]


def _fit(place: SAEAtSite, x: Float[Tensor, "token d_site"]) -> Fit:
    norms = norms_of(x)[None]
    limit = count_massive(norms, torch.ones_like(norms, dtype=torch.bool), MASSIVE_RATIO).limit
    taken = ordinary(x, limit).to(x.device)
    count = max(1, len(x) // STRETCH)
    stretch = (torch.arange(len(x), device=x.device) * count // len(x))[taken]
    x = x[taken]
    active, errors, given = 0, [], []
    for part, latents in place.pieces(x):
        given.append(place.decode(latents, like=x[part]))
        active += int((latents > 0).sum())
        errors.append((x[part].double() - given[-1].double()).square().sum(-1))
    centred = _minus_mean(x)
    variance = float(centred.square().sum())
    if not variance > 1e-12 * float(x.double().square().sum()):  # anything smaller is rounding error
        variance = math.nan
    squares = torch.zeros(count, dtype=torch.float64, device=x.device).index_add(0, stretch, torch.cat(errors))
    unexplained = (squares * count / variance).cpu()
    guesses = _minus_mean(torch.cat(given))
    spread = float(guesses.square().sum())
    slope = float((centred * guesses).sum()) / spread if spread else math.nan
    return Fit(active / len(x), 1 - float(unexplained.mean()), slope, unexplained)


def _minus_mean(x: Float[Tensor, "token d_site"]) -> Float64[Tensor, "token d_site"]:
    return x.double() - x.double().mean(0)
