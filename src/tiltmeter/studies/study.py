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
from tiltmeter.saes.names import loaded_by_name
from tiltmeter.saes.sae import LOCAL_KINDS
from tiltmeter.studies.claims import Claim
from tiltmeter.studies.lengths import Lengths
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep

Size = Literal["quick", "default", "paper"]
"""How much is measured: about a minute, some minutes, or as much as in the paper."""


@runtime_checkable
class Experiment(Protocol):
    """A measurement into a run directory, which resumes there after being killed."""

    @property
    def sequences(self) -> int:
        """How many token sequences it uses, including those for statistics."""
        ...

    @property
    def saes(self) -> tuple[str, ...]:
        """SAEs that it uses, by their names for `load_sae`."""
        ...

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Measure, or resume measuring, into `out`."""
        ...


@dataclass(frozen=True)
class SweepExperiment:
    """A sweep, as an experiment."""

    sweep: Sweep

    @property
    def sequences(self) -> int:
        """The larger of the numbers of sequences for measurement and for statistics."""
        return self.sweep.sequences_to_load

    @property
    def saes(self) -> tuple[str, ...]:
        """SAEs of the sweep."""
        return loaded_by_name(self.sweep.saes)

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Run the sweep."""
        return run_sweep(self.fitting(tokens), loaded, tokens, out, purpose)

    def fitting(self, tokens: TokenSet) -> Sweep:
        """The sweep on at most as many sequences as the token set has."""
        return self.sweep.model_copy(update={"sequences": min(self.sweep.sequences, len(tokens.ids))})


class KnownSAE(NamedTuple):
    """What a study must know about an SAE to plan experiments with it."""

    name: str
    """Its name for `load_sae`."""
    site: Site
    kind: str | None
    l0: float | None

    @property
    def is_local(self) -> bool:
        """Whether it was trained to reconstruct (not end to end)."""
        return self.kind in LOCAL_KINDS


@dataclass(frozen=True)
class Subject:
    """What a study is run on: a model, a layer, SAEs and a seed."""

    loaded: LoadedModel
    layer: int
    """The layer that corresponds to the paper's layer."""
    saes: tuple[KnownSAE, ...]
    seed: int = 0
    lengths: Lengths = "scaled"
    """Whether the paper's lengths are taken as they are."""

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks of the model."""
        return self.loaded.model.n_layers

    @property
    def last(self) -> Site:
        """The residual stream after the last block."""
        return Site(self.n_layers - 1, "resid_post")

    def saes_at(self, site: Site) -> tuple[KnownSAE, ...]:
        """SAEs at a site, the sparsest first, those with unknown L0 last."""
        here = [sae for sae in self.saes if sae.site == site]
        return tuple(sorted(here, key=lambda sae: (sae.l0 is None, sae.l0 or 0.0)))

    def local_at(self, site: Site, l0: float | None = None) -> KnownSAE | None:
        """The reconstruction-trained SAE at a site with the L0 nearest to `l0`; by default the one in the middle."""
        local = [sae for sae in self.saes_at(site) if sae.is_local]
        if l0 is None or not local:
            return local[len(local) // 2] if local else None
        return min(local, key=lambda sae: abs((sae.l0 or 0.0) - l0))


class PaperFigure(NamedTuple):
    """One figure of a paper: its words, the experiments it needs, and how to draw and describe it."""

    title: str
    caption: str
    claimed: str
    """What the paper says that the figure shows, in the paper's words or close to them."""
    needs: tuple[str, ...]
    """Names of experiments; `NAME` includes `NAME-0`, `NAME-1`, ..."""
    chart: Callable[[Results], Chart]
    finding: Callable[[Results], str]
    """What this run found, in a sentence or two."""


class Topic(NamedTuple):
    """Claims that the report has under one heading, with the figures that show them."""

    title: str
    figures: tuple[str, ...]
    """Numbers of figures, the first of which is the one to look at."""
    claims: tuple[str, ...]
    """Names of claims."""


class Preset(NamedTuple):
    """Model, tokens, layer and SAEs under one name: the embedded ones, or the paper's."""

    model: str
    tokens: str
    layer: int
    saes: tuple[str, ...]
    bos_before: str = "document"
    lengths: Lengths = "scaled"
    """Of the paths, at the preset's layer."""


class Study(NamedTuple):
    """The experiments, figures and claims of one paper."""

    name: str
    citation: str
    length: int
    """Tokens per sequence."""
    depth: float
    """The paper's layer as a fraction of the model's depth, by which the layer of another model is chosen."""
    experiments: Callable[[Subject, Size], dict[str, Experiment | NotMeasured]]
    """The experiments on a subject, by name; an experiment in several layers is `NAME-0`, `NAME-1`, ..."""
    figures: Mapping[str, PaperFigure]
    claims: tuple[Claim, ...]
    presets: Mapping[str, Preset]
    """By name; every study has `nano` and `gpt2`."""
    topics: tuple[Topic, ...] = ()
    """The claims in the order of the report; those without a topic come last."""
    headlines: tuple[str, ...] = ()
    """Names of the claims that matter most: about five, which the report says first."""
    uncontrolled: frozenset[str] = frozenset()
    """Experiments that no claim uses; they are not repeated on controls."""
