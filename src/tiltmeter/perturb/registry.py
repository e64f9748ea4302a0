"""Every direction that has a name, and how a name becomes a direction.

A name is in the registry, or a user's vector (`along:...`), or a blend of samples (`blend:...`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.blends import build_blend
from tiltmeter.perturb.directions import Along, Difference, Direction, Mixture, Plain, Toward
from tiltmeter.perturb.names import BLEND, DirectionName, check_sae
from tiltmeter.perturb.sae_directions import SAE_DIRECTIONS, SAEDirection
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.saes.latent_statistics import BoundSAE


@dataclass(frozen=True)
class SiteDirection:
    """A registry entry: a direction that needs nothing but the statistics of the site."""

    build: Callable[[SiteStatistics], Direction]
    meaning: str
    """The vector before it is normalised."""
    is_random: bool = True
    """False where the vector is a function of x alone: a second draw (`zero@1`) would be the same and is refused."""


DIRECTIONS: Mapping[str, SiteDirection | SAEDirection] = {
    "isotropic": SiteDirection(lambda s: Plain(s.isotropic), "g, with g ~ N(0, I)"),
    "isotropic-difference": SiteDirection(lambda s: Difference(s.isotropic), "g - x, with g ~ N(0, I)"),
    "cov-random-difference": SiteDirection(lambda s: Difference(s.gaussian), "sample of N(mean, covariance) - x"),
    "cov-random-mixture": SiteDirection(lambda s: Mixture(s.gaussian), "sample of N(mean, covariance) - another"),
    "real-difference": SiteDirection(lambda s: Difference(s.real), "activation of another sequence - x"),
    "real-mixture": SiteDirection(lambda s: Mixture(s.real), "activation of another sequence - another such"),
    # Gurnee 2024 takes the mean over each batch instead, so that his mean ablation depends on the batch.
    "zero": SiteDirection(lambda s: Toward(torch.zeros_like(s.mean)), "0 - x", is_random=False),
    "mean": SiteDirection(lambda s: Toward(s.mean), "mean of real activations - x", is_random=False),
    **SAE_DIRECTIONS,
}
"""Every direction that has a name. Nothing else follows from being listed here: which directions a paper measured is in
its study, which a sweep takes by default in `sweeps/plan.py`."""

NO_SAES: Mapping[str, BoundSAE] = MappingProxyType({})


def needs_sae(kind: str) -> bool:
    """Whether a direction of this kind belongs to an SAE; False for kinds that do not exist."""
    return isinstance(DIRECTIONS.get(kind), SAEDirection)


def counts_latents(kind: str) -> bool:
    """Whether a direction of this kind needs statistics of an SAE's latents (`LatentStatistics`)."""
    entry = DIRECTIONS.get(kind)
    return isinstance(entry, SAEDirection) and entry.counts_latents


def rng_key(name: DirectionName) -> str:
    """The string that enters the address of a direction's random numbers. It decides the numbers of a run.

    It is the name without the draw, which the address holds as a number. Two cases share a key, so that they draw the
    same and can be compared token by token: the two signs of a direction, and blends of the same sources.
    """
    if name.kind == BLEND and name.argument is not None:
        return f"{BLEND}:" + "+".join(source for _, source in name.terms)
    entry = DIRECTIONS.get(name.kind)
    kind = entry.opposite_of if isinstance(entry, SAEDirection) and entry.opposite_of else name.kind
    return str(DirectionName(kind, name.argument))


def build_directions(
    names: Sequence[DirectionName],
    statistics: SiteStatistics,
    vectors: Mapping[DirectionName, Tensor],
    saes: Mapping[str, BoundSAE] = NO_SAES,
) -> dict[DirectionName, Direction]:
    """The directions of these names, which `check_direction_name` has accepted.

    Args:
        names: names of directions.
        statistics: of the site.
        vectors: the user's own vectors.
        saes: SAEs of the run, by the names that directions give them.

    Raises:
        TiltmeterError: a vector or an SAE of another width than the site's; an SAE that has no latent of the kind
            asked for.
    """
    for sae in saes.values():
        sae.at.check_width(len(statistics.mean))
    return {
        name: _along(name, vectors[name], statistics) if name in vectors else _build(name, statistics, saes)
        for name in names
    }


def _along(name: DirectionName, vector: Tensor, statistics: SiteStatistics) -> Along:
    width = len(statistics.mean)
    if vector.shape != (width,):
        raise TiltmeterError(
            f"The vector {name} has width {vector.shape[-1]}, but those at this site {width}; "
            "give vectors of that width."
        )
    return Along(vector)


def _build(name: DirectionName, statistics: SiteStatistics, saes: Mapping[str, BoundSAE]) -> Direction:
    if name.kind == BLEND:
        return build_blend(name, statistics)
    entry = DIRECTIONS[name.kind]
    if isinstance(entry, SAEDirection):
        assert name.argument is not None
        return entry.build(statistics, saes[name.argument])
    return entry.build(statistics)


def check_direction_name(name: DirectionName, saes: Collection[str] = ()) -> None:
    """Refuse a name that is not a direction's, in a run that has SAEs of these names.

    Vectors of the user's (`along:...`) are not looked up here; `load_vectors` refuses those that do not exist.

    Raises:
        TiltmeterError: the kind does not exist, its SAE does not, or it is numbered although nothing in it is random.
    """
    if name.kind == BLEND and name.argument is not None:
        return
    entry = DIRECTIONS.get(name.kind)
    if entry is not None and name.draw and not entry.is_random:
        raise TiltmeterError(
            f"Nothing is drawn in {name.kind}, so {str(name)!r} would be the same again; leave out @{name.draw}."
        )
    if isinstance(entry, SAEDirection):
        check_sae(name, saes)
    elif entry is None or name.argument is not None:
        raise TiltmeterError(
            f"{str(name)!r} is not a direction; choose from {', '.join(k for k in DIRECTIONS if not needs_sae(k))}, "
            "along:FILE for your own vectors, blend:0.5*real+0.5*cov-random for points between samples, or with the "
            f"name of an SAE in the place of NAME {', '.join(f'{k}:NAME' for k in DIRECTIONS if needs_sae(k))}."
        )
