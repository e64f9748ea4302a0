"""Bases: the activation that a path starts at, transplanted into the sequence where the clean one was.

What is read is then compared with the model's output with the base in place, not with the clean run (Heimersheim &
Mendel 2024, experiment 1; Giglemiani et al. 2024, activation plateaus).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun
from tiltmeter.models.differences import Tape
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.names import names_an_sae
from tiltmeter.perturb.sae_sources import Itself, Reconstruction, SyntheticBaseline, SyntheticStructured
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Source
from tiltmeter.saes.latent_statistics import BoundSAE

CLEAN = "clean"
"""The base of a path that starts at the activation itself."""


class Definition(NamedTuple):
    """A base that has a name."""

    build: Callable[[SiteStatistics], Source]
    meaning: str


class SAEDefinition(NamedTuple):
    """A base that needs an SAE and has a name."""

    build: Callable[[BoundSAE], Source]
    meaning: str


BASES: Mapping[str, Definition] = {
    CLEAN: Definition(lambda _: Itself(), "x, the activation itself"),
    "real": Definition(lambda s: s.real, "activation of another sequence"),
    "cov-random": Definition(lambda s: s.gaussian, "sample of N(mean, covariance)"),
    "isotropic": Definition(lambda s: s.isotropic, "g ~ N(0, I)"),
}
"""Bases that need no SAE."""

SAE_BASES: Mapping[str, SAEDefinition] = {
    "sae-reconstruction": SAEDefinition(lambda sae: Reconstruction(sae.at, Itself()), "SAE(x)"),
    "synthetic-baseline": SAEDefinition(
        SyntheticBaseline, "decoded latents of x, each exchanged for one that fires as often"
    ),
    "synthetic-structured": SAEDefinition(
        SyntheticStructured, "decoded latents of x, exchanged for others that lie to the strongest as they did"
    ),
}
"""Bases that need an SAE. A full name is `KIND:NAME`, NAME the SAE's."""

COUNTING_BASES = frozenset({"synthetic-baseline", "synthetic-structured"})
"""Those that ask which latents fire how often."""


@dataclass(frozen=True)
class Base:
    """Something else than the clean activation to start a path at."""

    name: str
    source: Source

    @property
    def draws_as(self) -> str:
        """The name under which it draws: no direction's, so that a direction's draws are others."""
        return f"base {self.name}"


def build_base(name: str, statistics: SiteStatistics, saes: Mapping[str, BoundSAE]) -> Base | None:
    """The base of this name; None where paths start at the activation itself.

    Raises:
        TiltmeterError: an unknown name; an SAE of another width than the site's.
    """
    check_base_name(name, saes)
    kind, _, sae = name.partition(":")
    if name == CLEAN:
        return None
    if kind in SAE_BASES:
        saes[sae].at.check_width(len(statistics.mean))
        return Base(name, SAE_BASES[kind].build(saes[sae]))
    return Base(name, BASES[name].build(statistics))


def check_base_name(name: str, saes: Collection[str] = ()) -> None:
    """Refuse a name that is no base's, in a run that has SAEs of these names.

    Raises:
        TiltmeterError: it is none.
    """
    if name in BASES or names_an_sae(name, SAE_BASES, saes):
        return
    raise TiltmeterError(
        f"{name!r} is not a base; choose from {', '.join(BASES)}, or with the name of an SAE in the place of NAME "
        f"{', '.join(f'{kind}:NAME' for kind in SAE_BASES)}."
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
