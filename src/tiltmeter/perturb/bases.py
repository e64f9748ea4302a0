"""Bases: activations that replace the clean one as the start of a path.

Readouts then compare with the model's output at the base, not with the clean run (Heimersheim & Mendel 2024,
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
from tiltmeter.perturb.names import BaseName, Kinds, check_base
from tiltmeter.perturb.sae_sources import CleanActivation, Reconstruction, SyntheticBaseline, SyntheticStructured
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Source
from tiltmeter.saes.latent_statistics import SAEWithStatistics

CLEAN = "clean"
"""The name of the default base: the path starts at the clean activation."""


@dataclass(frozen=True)
class SiteBase:
    """A base that needs only the statistics of the site."""

    build: Callable[[SiteStatistics], Source]
    meaning: str


@dataclass(frozen=True)
class SAEBase:
    """A base that needs an SAE. Its full name is `KIND:NAME`, where NAME is the SAE's."""

    build: Callable[[SAEWithStatistics], Source]
    meaning: str
    counts_latents: bool = False
    """Whether it needs `LatentStatistics`, that is, how often each latent fires."""
    needs_rows: bool = False
    """Whether it needs the decoder's rows, and not only `encode` and `decode`."""


BASES: Mapping[str, SiteBase] = {
    CLEAN: SiteBase(lambda _: CleanActivation(), "x, the activation itself"),
    "real": SiteBase(lambda s: s.real, "activation of another sequence"),
    "cov-random": SiteBase(lambda s: s.gaussian, "sample of N(mean, covariance)"),
    "isotropic": SiteBase(lambda s: s.isotropic, "g ~ N(0, I)"),
}
"""Bases that need no SAE."""

SAE_BASES: Mapping[str, SAEBase] = {
    "sae-reconstruction": SAEBase(lambda sae: Reconstruction(sae.at, CleanActivation()), "SAE(x)"),
    "synthetic-baseline": SAEBase(
        SyntheticBaseline, "decoded latents of x, each replaced by one that fires as often", counts_latents=True
    ),
    "synthetic-structured": SAEBase(
        SyntheticStructured,
        "decoded latents of x, replaced by others with the same cosines to the strongest",
        counts_latents=True,
        needs_rows=True,
    ),
}
"""Bases that need an SAE."""


@dataclass(frozen=True)
class Base:
    """A start of paths other than the clean activation."""

    name: BaseName
    source: Source

    @property
    def rng_key(self) -> str:
        """Return the string that enters the address of its random numbers.

        It differs from the key of every direction. If base and direction shared draws, the direction `isotropic` from
        the base `isotropic` would point straight away from zero.
        """
        return f"base {self.name}"


def build_base(name: BaseName, statistics: SiteStatistics, saes: Mapping[str, SAEWithStatistics]) -> Base | None:
    """Build the base with this name, which `check_base_name` has accepted. None stands for the clean activation.

    Raises:
        TiltmeterError: the SAE's width differs from the site's.
    """
    if name.kind == CLEAN:
        return None
    if name.kind in SAE_BASES:
        assert name.argument is not None
        saes[name.argument].at.check_width(len(statistics.mean))
        return Base(name, SAE_BASES[name.kind].build(saes[name.argument]))
    return Base(name, BASES[name.kind].build(statistics))


def check_base_name(name: BaseName, saes: Collection[str] = ()) -> None:
    """Check that this names a base, in a run with SAEs of these names.

    Raises:
        TiltmeterError: the kind does not exist, or its SAE does not.
    """
    check_base(name, saes, Kinds(plain=BASES, of_saes=SAE_BASES))


def transplanted(model: SplitModel, clean: CleanRun, x0: Float[Tensor, "batch span d_site"]) -> CleanRun:
    """Run the model with `x0` at the span: the reference for perturbed runs that start there.

    Raises:
        TiltmeterError: the model's output is not finite with `x0` in place.
    """
    late = model.resume(clean, x0)
    if not all(bool(torch.isfinite(value).all()) for value in (late.final, *late.sites.values())):
        raise TiltmeterError(
            f"The model's output is not finite with the base in place at {clean.site.name}; use another base, or "
            "--precision float64."
        )
    activation = torch.cat([clean.activation[:, : clean.span.first], x0], dim=1)
    return replace(clean, activation=activation, late=late, tape=Tape())
