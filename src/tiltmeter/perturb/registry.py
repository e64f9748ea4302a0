"""The registry of named directions, and how a name becomes a direction.

A name refers to a registry entry, a user's vector (`along:...`) or a blend of samples (`blend:...`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.mlp_input import MLPInput
from tiltmeter.perturb.blends import build_blend
from tiltmeter.perturb.directions import Difference, Direction, Mixture, Plain, Toward
from tiltmeter.perturb.names import BLEND, BaseName, DirectionName, Kinds, check_direction
from tiltmeter.perturb.sae_directions import SAE_DIRECTIONS, SAEDirection
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.transcoder_directions import TRANSCODER_DIRECTIONS, TranscoderDirection
from tiltmeter.runs.plugins import Registry
from tiltmeter.saes.at_site import DictionaryAtSite, RowsAtSite, SAEAtSite, TranscoderAtSite
from tiltmeter.saes.latent_statistics import SAEWithStatistics


@dataclass(frozen=True)
class SiteDirection:
    """A registry entry for a direction that needs only the statistics of the site."""

    build: Callable[[SiteStatistics], Direction]
    meaning: str
    """The vector before it is normalised."""
    is_random: bool = True
    """False if the vector is a function of x alone. A second draw (`zero@1`) would be identical and is refused."""


_OWN: dict[str, SiteDirection | SAEDirection | TranscoderDirection] = {
    "isotropic": SiteDirection(lambda s: Plain(s.isotropic), "g, with g ~ N(0, I)"),
    "isotropic-difference": SiteDirection(lambda s: Difference(s.isotropic), "g - x, with g ~ N(0, I)"),
    "cov-random-difference": SiteDirection(lambda s: Difference(s.gaussian), "sample of N(mean, covariance) - x"),
    "cov-random-mixture": SiteDirection(lambda s: Mixture(s.gaussian), "sample of N(mean, covariance) - another"),
    "cov-trimmed-difference": SiteDirection(
        lambda s: Difference(s.trimmed), "sample of N(mean, covariance) of the pool without its outermost 1 % - x"
    ),
    "cov-trimmed-mixture": SiteDirection(lambda s: Mixture(s.trimmed), "the difference of two such samples"),
    "real-difference": SiteDirection(lambda s: Difference(s.real), "activation of another sequence - x"),
    "real-mixture": SiteDirection(lambda s: Mixture(s.real), "activation of another sequence - another one"),
    # Gurnee 2024 uses the mean of each batch instead, so his mean ablation depends on the batch.
    "zero": SiteDirection(lambda s: Toward(torch.zeros_like(s.mean)), "0 - x", is_random=False),
    "mean": SiteDirection(lambda s: Toward(s.mean), "mean of real activations - x", is_random=False),
    **SAE_DIRECTIONS,
    **TRANSCODER_DIRECTIONS,
}

DIRECTIONS: MutableMapping[str, SiteDirection | SAEDirection | TranscoderDirection] = Registry(
    "tiltmeter.directions", _OWN
)
"""All named directions, those of other packages among them (`tiltmeter.directions`). The directions a paper measured
are listed in its study, and a sweep's defaults in `sweeps/plan.py`."""

NO_SAES: Mapping[str, SAEWithStatistics | RowsAtSite] = MappingProxyType({})


def kinds() -> Kinds:
    """The kinds of directions, as the check of a name needs them."""
    plain = [kind for kind, entry in DIRECTIONS.items() if isinstance(entry, SiteDirection)]
    fixed = [kind for kind, entry in DIRECTIONS.items() if not entry.is_random]
    return Kinds(plain, [kind for kind in DIRECTIONS if kind not in plain], fixed)


def needs_sae(kind: str) -> bool:
    """Whether directions of this kind need an SAE or a transcoder. False for kinds that do not exist."""
    return isinstance(DIRECTIONS.get(kind), SAEDirection | TranscoderDirection)


def counts_latents(kind: str) -> bool:
    """Whether directions of this kind need statistics of an SAE's latents (`LatentStatistics`)."""
    entry = DIRECTIONS.get(kind)
    return isinstance(entry, SAEDirection) and entry.counts_latents


def needs_rows(kind: str) -> bool:
    """Whether directions of this kind need the rows of an SAE's decoder."""
    entry = DIRECTIONS.get(kind)
    return isinstance(entry, SAEDirection) and entry.needs_rows


def rng_key(name: DirectionName) -> str:
    """Return the string that enters the address of a direction's random numbers, and so determines its draws.

    It is the name without the draw, which the address holds as a number. The two signs of a direction share a key, and
    so do blends of the same sources, and a mixture and the points at distance ε along it: they see the same draws and
    can be compared token by token.
    """
    if name.kind == BLEND and name.argument is not None:
        return f"{BLEND}:" + "+".join(source for _, source in name.terms)
    entry = DIRECTIONS.get(name.kind)
    if isinstance(entry, SAEDirection) and entry.of_length_epsilon:
        return entry.of_length_epsilon
    kind = entry.opposite_of if isinstance(entry, SAEDirection) and entry.opposite_of else name.kind
    return str(DirectionName(kind, name.argument))


def build_directions(
    names: Sequence[DirectionName],
    statistics: SiteStatistics,
    own: Mapping[DirectionName, Direction],
    saes: Mapping[str, SAEWithStatistics | RowsAtSite] = NO_SAES,
) -> dict[DirectionName, Direction]:
    """Build the directions with these names, which `check_direction_name` has accepted.

    Args:
        names: names of directions.
        statistics: statistics of the site.
        own: the user's own directions.
        saes: SAEs of the run and decoder rows of other dictionaries, under the names that directions use.

    Raises:
        TiltmeterError: the width of an SAE differs from the site's; an SAE has no latent of the requested
            kind.
    """
    for sae in saes.values():
        (sae.at if isinstance(sae, SAEWithStatistics) else sae).check_width(len(statistics.mean))
    return {name: own[name] if name in own else _build(name, statistics, saes) for name in names}


def _build(
    name: DirectionName, statistics: SiteStatistics, saes: Mapping[str, SAEWithStatistics | RowsAtSite]
) -> Direction:
    if name.kind == BLEND:
        return build_blend(name, statistics)
    entry = DIRECTIONS[name.kind]
    if isinstance(entry, SAEDirection):
        assert name.argument is not None
        sae = saes[name.argument]
        if isinstance(sae, SAEWithStatistics):
            return entry.build(statistics, sae)
        assert entry.of_rows is not None
        return entry.of_rows(sae)
    if isinstance(entry, TranscoderDirection):
        at = saes[str(name.argument)]
        assert isinstance(at, TranscoderAtSite)
        return entry.build(at)
    return entry.build(statistics)


def check_direction_name(name: DirectionName, saes: Collection[str] = ()) -> None:
    """Check that this names a direction, in a run with SAEs of these names.

    User vectors (`along:...`) are not looked up here; `load_vectors` raises for those that do not exist.

    Raises:
        TiltmeterError: the kind or its SAE does not exist, or a draw is numbered although nothing is random.
    """
    check_direction(name, saes, kinds())


def check_suits(name: DirectionName | BaseName, at: RowsAtSite) -> None:
    """Check that a direction or base can be made from this SAE, transcoder or other dictionary.

    Raises:
        TiltmeterError: it needs latents or a reconstruction, and there are only decoder rows; it needs a transcoder.
    """
    entry = DIRECTIONS.get(name.kind) if isinstance(name, DirectionName) else None
    what = at.what if isinstance(at, DictionaryAtSite) else "an SAE"
    if isinstance(entry, TranscoderDirection):
        if not isinstance(at, TranscoderAtSite):
            raise TiltmeterError(
                f"{name} cannot be computed: {at.name} is {what}; expected a transcoder of an MLP, at that MLP's "
                f"output, whose files say that it reads one of {', '.join(get_args(MLPInput))} (hook_name in the "
                "configuration)."
            )
        return
    if isinstance(at, SAEAtSite) or (isinstance(entry, SAEDirection) and entry.of_rows is not None):
        return
    possible = " and ".join(kind for kind, one in SAE_DIRECTIONS.items() if one.of_rows is not None)
    raise TiltmeterError(
        f"{name} cannot be computed: {at.name} is {what}, and only its decoder rows are used, by {possible}."
    )
