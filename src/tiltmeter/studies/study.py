"""What a study is made of: experiments, figures and claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import xarray as xr

from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.saes.sae import LOCAL_KINDS
from tiltmeter.studies.claims import Claim
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep

Size = Literal["quick", "default", "paper"]
"""How much is measured: in about a minute, in minutes, or as much as the paper."""


@runtime_checkable
class Experiment(Protocol):
    """Something that is measured into a run directory, and goes on there after being killed."""

    @property
    def sequences(self) -> int:
        """How many token sequences it uses, its statistics included."""
        ...

    @property
    def saes(self) -> tuple[str, ...]:
        """SAEs that it is of, as `load_sae` names them."""
        ...

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Measure, or go on measuring."""
        ...


@dataclass(frozen=True)
class Sweeping:
    """A sweep, as an experiment."""

    sweep: Sweep

    @property
    def sequences(self) -> int:
        """Those that are measured, or as many as the statistics may want."""
        return max(self.sweep.sequences, self.sweep.statistics_sequences)

    @property
    def saes(self) -> tuple[str, ...]:
        """The sweep's."""
        return self.sweep.saes

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Run the sweep, on no more sequences than there are."""
        fitting = self.sweep.model_copy(update={"sequences": min(self.sweep.sequences, len(tokens.ids))})
        return run_sweep(fitting, loaded, tokens, out, purpose)


class KnownSAE(NamedTuple):
    """What a study must know of an SAE to plan with it."""

    name: str
    """As `load_sae` takes it."""
    site: Site
    kind: str | None
    l0: float | None

    @property
    def is_local(self) -> bool:
        """Whether it was trained to reconstruct."""
        return self.kind in LOCAL_KINDS


@dataclass(frozen=True)
class Subject:
    """What a study is run on."""

    loaded: LoadedModel
    layer: int
    """The layer that the paper's layer becomes here."""
    saes: tuple[KnownSAE, ...]
    seed: int = 0

    @property
    def n_layers(self) -> int:
        """Blocks of the model."""
        return self.loaded.model.n_layers

    @property
    def last(self) -> Site:
        """The stream after the last block."""
        return Site(self.n_layers - 1, "resid_post")

    def saes_at(self, site: Site) -> tuple[KnownSAE, ...]:
        """Those of a site, the sparsest first; those whose L0 is not known last."""
        here = [sae for sae in self.saes if sae.site == site]
        return tuple(sorted(here, key=lambda sae: (sae.l0 is None, sae.l0 or 0.0)))

    def local_at(self, site: Site, l0: float | None = None) -> KnownSAE | None:
        """The one of a site, trained to reconstruct, whose L0 is nearest to `l0`; without one, that in the middle."""
        local = [sae for sae in self.saes_at(site) if sae.is_local]
        if l0 is None or not local:
            return local[len(local) // 2] if local else None
        return min(local, key=lambda sae: abs((sae.l0 or 0.0) - l0))


class PaperFigure(NamedTuple):
    """One figure of a paper: what it needs, how it is drawn, what it says."""

    title: str
    caption: str
    claimed: str
    """What the paper says it shows, in the paper's words or close to them."""
    needs: tuple[str, ...]
    """Experiments; `NAME` stands for `NAME-0`, `NAME-1`, ... too."""
    chart: Callable[[Results], Chart]
    finding: Callable[[Results], str]
    """What this run found, in a sentence or two."""


class Preset(NamedTuple):
    """What a study is run on under a name: the embedded model, or what the paper ran on."""

    model: str
    tokens: str
    layer: int
    saes: tuple[str, ...]
    bos_before: str = "document"


class Study(NamedTuple):
    """One paper."""

    name: str
    citation: str
    length: int
    """Tokens per sequence."""
    middle: float
    """The paper's layer, as a part of the model's depth: where the same is done in a model of another depth."""
    experiments: Callable[[Subject, Size], dict[str, Experiment | NotMeasured]]
    """What is measured on a subject, by name; several layers of one thing as `NAME-0`, `NAME-1`."""
    figures: Mapping[str, PaperFigure]
    claims: tuple[Claim, ...]
    presets: Mapping[str, Preset]
    """By name: `nano`, `gpt2`."""
    uncontrolled: frozenset[str] = frozenset()
    """Experiments that no claim rests on: they are not repeated on random weights."""
