"""The directions that have a name: the papers', those of an SAE (`KIND:NAME`), and the user's (`along:...`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb import blends
from tiltmeter.perturb.directions import Along, Difference, Direction, Mixture, Plain, Toward
from tiltmeter.perturb.names import names_an_sae, split_draw
from tiltmeter.perturb.sae_directions import SAE_DIRECTIONS
from tiltmeter.perturb.sae_directions import draws_as as sae_draws_as
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.saes.latent_statistics import BoundSAE


class Definition(NamedTuple):
    """A direction that has a name."""

    build: Callable[[SiteStatistics], Direction]
    meaning: str


DIRECTIONS: Mapping[str, Definition] = {
    "isotropic": Definition(lambda s: Plain(s.isotropic), "g, with g ~ N(0, I)"),
    "isotropic-difference": Definition(lambda s: Difference(s.isotropic), "g - x, with g ~ N(0, I)"),
    "cov-random-difference": Definition(lambda s: Difference(s.gaussian), "sample of N(mean, covariance) - x"),
    "cov-random-mixture": Definition(lambda s: Mixture(s.gaussian), "sample of N(mean, covariance) - another"),
    "real-difference": Definition(lambda s: Difference(s.real), "activation of another sequence - x"),
    "real-mixture": Definition(lambda s: Mixture(s.real), "activation of another sequence - another such"),
}
"""The directions of Lee & Heimersheim 2024 that need no SAE, and what they are before normalisation."""

ABLATIONS: Mapping[str, Definition] = {
    "zero": Definition(lambda s: Toward(torch.zeros_like(s.mean)), "0 - x"),
    "mean": Definition(lambda s: Toward(s.mean), "mean of real activations - x"),
}
"""Directions that end where nothing of x is left (Gurnee 2024, who takes the mean over each batch instead)."""

NO_SAES: Mapping[str, BoundSAE] = MappingProxyType({})


def draws_as(name: str) -> str:
    """The name under which a direction draws: the two signs of one, and blends of one set of sources, draw the same.

    Draws of one direction that are told apart by a number have one name.
    """
    name = split_draw(name).name
    return blends.blend_draws_as(name) if name.startswith(blends.PREFIX) else sae_draws_as(name)


def build_directions(
    names: tuple[str, ...],
    statistics: SiteStatistics,
    vectors: Mapping[str, Tensor],
    saes: Mapping[str, BoundSAE] = NO_SAES,
) -> dict[str, Direction]:
    """The directions of these names.

    Args:
        names: names of directions.
        statistics: of the site.
        vectors: the user's own vectors, by the names given to them (`along:...`).
        saes: SAEs of the run, by the names given to them.

    Raises:
        TiltmeterError: an unknown name; a vector or an SAE of another width than the site's; an SAE that has no latent
            of the kind asked for.
    """
    for sae in saes.values():
        sae.at.check_width(len(statistics.mean))
    return {name: _build(name, statistics, vectors, saes) for name in names}


def _build(
    name: str, statistics: SiteStatistics, vectors: Mapping[str, Tensor], saes: Mapping[str, BoundSAE]
) -> Direction:
    if name in vectors:
        width = len(statistics.mean)
        if vectors[name].shape != (width,):
            raise TiltmeterError(
                f"The vector {name} has width {vectors[name].shape[-1]}, but those at this site {width}; "
                "give vectors of that width."
            )
        return Along(vectors[name])
    if name.startswith(blends.PREFIX):
        return blends.build_blend(name, statistics)
    check_direction_name(name, saes)
    name = split_draw(name).name
    kind, _, sae = name.partition(":")
    if kind in SAE_DIRECTIONS:
        return SAE_DIRECTIONS[kind].build(statistics, saes[sae])
    return (DIRECTIONS[name] if name in DIRECTIONS else ABLATIONS[name]).build(statistics)


def check_direction_name(name: str, saes: Collection[str] = ()) -> None:
    """Refuse a name that is no direction's, in a run that has SAEs of these names."""
    if name.startswith(blends.PREFIX):
        blends.parse_blend(name)
        return
    given, name = name, split_draw(name).name
    if name in DIRECTIONS or name in ABLATIONS or names_an_sae(name, SAE_DIRECTIONS, saes):
        return
    raise TiltmeterError(
        f"{given!r} is not a direction; choose from {', '.join((*DIRECTIONS, *ABLATIONS))}, along:FILE for your own "
        "vectors, blend:0.5*real+0.5*cov-random for points between samples, or with the name of an SAE in the place of "
        f"NAME {', '.join(f'{k}:NAME' for k in SAE_DIRECTIONS)}."
    )
