"""Bases: the activation that a path starts at, put into the sequence in place of the clean one.

Readouts then compare with the model's output with the base in place, not with the clean run (Heimersheim & Mendel 2024,
experiment 1; Giglemiani et al. 2024, activation plateaus).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun
from tiltmeter.models.differences import Tape
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.names import BaseName, check_sae
from tiltmeter.perturb.sae_sources import Itself, Reconstruction, SyntheticBaseline, SyntheticStructured
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Source
from tiltmeter.saes.latent_statistics import BoundSAE

CLEAN = "clean"
"""The base of a path that starts at the activation itself."""


@dataclass(frozen=True)
class SiteBase:
    """A base that needs nothing but the statistics of the site."""

    build: Callable[[SiteStatistics], Source]
    meaning: str


@dataclass(frozen=True)
class SAEBase:
    """A base that belongs to an SAE. Its full name is `KIND:NAME`, NAME the SAE's."""

    build: Callable[[BoundSAE], Source]
    meaning: str
    counts_latents: bool = False
    """Whether it needs `LatentStatistics`: which latents fire how often."""


BASES: Mapping[str, SiteBase] = {
    CLEAN: SiteBase(lambda _: Itself(), "x, the activation itself"),
    "real": SiteBase(lambda s: s.real, "activation of another sequence"),
    "cov-random": SiteBase(lambda s: s.gaussian, "sample of N(mean, covariance)"),
    "isotropic": SiteBase(lambda s: s.isotropic, "g ~ N(0, I)"),
}
"""Bases that need no SAE."""

SAE_BASES: Mapping[str, SAEBase] = {
    "sae-reconstruction": SAEBase(lambda sae: Reconstruction(sae.at, Itself()), "SAE(x)"),
    "synthetic-baseline": SAEBase(
        SyntheticBaseline, "decoded latents of x, each exchanged for one that fires as often", counts_latents=True
    ),
    "synthetic-structured": SAEBase(
        SyntheticStructured,
        "decoded latents of x, exchanged for others that lie to the strongest as they did",
        counts_latents=True,
    ),
}
"""Bases that need an SAE."""


@dataclass(frozen=True)
class Base:
    """An activation other than the clean one, that a path starts at."""

    name: BaseName
    source: Source

    @property
    def rng_key(self) -> str:
        """The string that enters the address of its random numbers.

        No direction has it: were the draws of base and direction equal, the direction `isotropic` from the base
        `isotropic` would point straight away from zero.
        """
        return f"base {self.name}"


def build_base(name: BaseName, statistics: SiteStatistics, saes: Mapping[str, BoundSAE]) -> Base | None:
    """The base of this name, which `check_base_name` has accepted; None where paths start at the clean activation.

    Raises:
        TiltmeterError: an SAE of another width than the site's.
    """
    if name.kind == CLEAN:
        return None
    if name.kind in SAE_BASES:
        assert name.argument is not None
        saes[name.argument].at.check_width(len(statistics.mean))
        return Base(name, SAE_BASES[name.kind].build(saes[name.argument]))
    return Base(name, BASES[name.kind].build(statistics))


def check_base_name(name: BaseName, saes: Collection[str] = ()) -> None:
    """Refuse a name that is not a base's, in a run that has SAEs of these names.

    Raises:
        TiltmeterError: the kind does not exist, or its SAE does not.
    """
    if name.kind in SAE_BASES:
        check_sae(name, saes)
    elif str(name) not in BASES:
        raise TiltmeterError(
            f"{str(name)!r} is not a base; choose from {', '.join(BASES)}, or with the name of an SAE in the place of "
            f"NAME {', '.join(f'{kind}:NAME' for kind in SAE_BASES)}."
        )


def transplanted(model: SplitModel, clean: CleanRun, x0: Float[Tensor, "batch span d_site"]) -> CleanRun:
    """The run with `x0` at the span: what perturbed runs that start there are compared with.

    Raises:
        TiltmeterError: the model's output is not finite with it.
    """
    late = model.resume(clean, x0)
    if not all(bool(torch.isfinite(value).all()) for value in (late.final, *late.sites.values())):
        raise TiltmeterError(
            f"The model's output is not finite with the base in place at {clean.site.name}; use another base, or "
            "--precision float64."
        )
    activation = torch.cat([clean.activation[:, : clean.span.first], x0], dim=1)
    return replace(clean, activation=activation, late=late, tape=Tape())
