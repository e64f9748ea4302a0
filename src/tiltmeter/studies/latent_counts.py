"""How many latents of an SAE a random activation turns on, beside real activations.

Heimersheim & Mendel 2024, footnote 1: "Inputting a random direction into an SAE activates between 10 and 20000 features
(lognormal distribution with a peak around 30)." An SAE is trained on real activations alone, so what its encoder makes
of others says little of the model; the post doubts that it should be asked.

A dataset of counts has the dimensions `input` and `sequence`, the variable `active` (latents above zero, of the
activation at the last token), and the attributes `model`, `site`, `sae` (its label), `latents` (their number) and
`tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from tiltmeter.data.token_set import TokenSet
from tiltmeter.models import provenance
from tiltmeter.models.behaviour import check_behaviour
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.site_statistics import SiteStatistics, fit_statistics
from tiltmeter.perturb.sources import Context
from tiltmeter.runs import run_directory
from tiltmeter.runs.rng import Address
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.names import load_at_site, sae_names
from tiltmeter.studies.token_facts import FILE, SHARD

POOL = 4096
"""Real activations that are kept with the statistics; none is drawn."""

INPUTS = ("real", "cov-random", "cov-random-difference")
"""A prompt's own activation x, a sample s of N(mean, covariance), and s - x."""


@dataclass(frozen=True)
class LatentCounts:
    """Active latents of real and random activations, as an experiment of a study."""

    site: str
    saes: tuple[str]
    """One SAE, by its name for `load_sae`."""
    sequences: int
    statistics_sequences: int
    seed: int

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Measure into the run directory `out`; its `facts.nc` is what this returns.

        Raises:
            TiltmeterError: wrong input; `out` is in use or belongs to another run.
        """
        model = loaded.model
        site = model.site(self.site)
        ((label, name),) = sae_names(self.saes, site).items()
        at = load_at_site(name, model, site)
        own = {"site": site.name, "sae": at.sae.about.sha256, "sequences": self.sequences, "seed": self.seed}
        identity = provenance.identity(loaded, tokens) | {
            "latent_counts": own | {"statistics_sequences": self.statistics_sequences}
        }
        with run_directory.open_run(
            out, identity, lambda: provenance.record(loaded, tokens) | {"purpose": purpose}
        ) as run:
            check_behaviour(run, model, tokens.ids[:2])
            counts = [_active(at, model.centre(one, site)) for one in self._inputs(model, tokens, site).values()]
            attrs = {"model": model.name, "site": site.name, "tokens": tokens.name, "sae": label, "latents": at.size}
            about = {"long_name": "active latents", "units": "latents"}
            coords = {"input": list(INPUTS), "sequence": np.arange(len(counts[0]), dtype=np.int32)}
            dataset = xr.Dataset({"active": (("input", "sequence"), np.stack(counts), about)}, coords, attrs)
            run.write_bytes(FILE, bytes(dataset.to_netcdf(engine="scipy")))
        return dataset

    def _inputs(
        self, model: SplitModel, tokens: TokenSet, site: Site
    ) -> Mapping[str, Float[Tensor, "sequence d_site"]]:
        last = tokens.ids.shape[1] - 1
        statistics = fit_statistics(
            model, tokens.first(self.statistics_sequences), site, BosPolicy(), POOL, self.seed, positions=(last,)
        )
        shards = tokens.ids[: self.sequences].split(SHARD)
        x = torch.cat([model.start(some, site).activation[:, last] for some in shards])
        sample = _sample(statistics, x, last, self.seed)
        return dict(zip(INPUTS, (x, sample, sample - x), strict=True))


def _sample(
    statistics: SiteStatistics, x: Float[Tensor, "sequence d_site"], last: int, seed: int
) -> Float[Tensor, "sequence d_site"]:
    """The samples that the study's cov-random directions lead to."""
    address = Address(seed, "cov-random-difference", torch.arange(len(x)), torch.tensor([last]))
    context = Context(x[:, None], address, lambda: x[:, None], lambda: torch.ones(len(x), 1, dtype=torch.bool))
    return statistics.gaussian.sample(context, 1)[0, :, 0].to(x)


def _active(at: SAEAtSite, x: Float[Tensor, "sequence d_site"]) -> Int[np.ndarray, " sequence"]:
    with torch.no_grad():
        return torch.cat([(latents > 0).sum(-1) for _, latents in at.pieces(x)]).cpu().numpy().astype(np.int32)
