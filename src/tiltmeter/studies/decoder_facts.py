"""How isotropic the decoder rows of SAEs are: the cosine of a row with the nearest other row.

Rows in directions that have nothing to do with each other are far from all others; rows that crowd into some directions
have near neighbours (Braun et al. 2024, section 3 and Figure 3a). A dataset of these facts has the dimensions `sae` and
`sequence` (here: a latent), the variable `nearest`, and the attributes `model`, `site` and `tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int64
from torch import Tensor

from tiltmeter.data.token_set import TokenSet
from tiltmeter.models import provenance
from tiltmeter.models.behaviour import check_behaviour
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs import run_directory
from tiltmeter.runs.progress import progress
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.names import load_at_site, sae_names
from tiltmeter.studies.token_facts import FILE, SHARD

LATENTS = 1024
"""The most latents of an SAE whose nearest neighbours are looked for; neighbours may be any latent that is alive."""

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class DecoderFacts:
    """The nearest neighbours of SAEs' decoder rows, as an experiment of a study."""

    site: str
    saes: tuple[str, ...]
    """By their names for `load_sae`."""
    sequences: int
    """On which a latent must be active at some token, to be alive."""
    seed: int

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Measure into the run directory `out`; its `facts.nc` is what this returns.

        Raises:
            TiltmeterError: wrong input; `out` is in use or belongs to another run.
        """
        site = loaded.model.site(self.site)
        found = {label: load_at_site(name, loaded.model, site) for label, name in sae_names(self.saes, site).items()}
        facts = {"site": site.name, "sequences": self.sequences, "seed": self.seed}
        identity = provenance.identity(loaded, tokens) | {
            "decoders": facts | {"saes": [at.sae.about.sha256 for at in found.values()]}
        }
        with run_directory.open_run(
            out, identity, lambda: provenance.record(loaded, tokens) | {"purpose": purpose}
        ) as run:
            check_behaviour(run, loaded.model, tokens.ids[:2])
            ids = tokens.ids[: self.sequences]
            alive = _alive(loaded.model, ids, list(found.values()))
            rows = [self._nearest(at, latents) for at, latents in zip(found.values(), alive, strict=True)]
            dataset = xr.Dataset(
                {"nearest": (("sae", "sequence"), np.stack(rows), {"long_name": "cosine with the nearest other row"})},
                {"sae": list(found), "sequence": np.arange(LATENTS, dtype=np.int32)},
                {"model": loaded.model.name, "site": site.name, "tokens": tokens.name},
            )
            run.write_bytes(FILE, bytes(dataset.to_netcdf(engine="scipy")))
        return dataset

    def _nearest(self, at: SAEAtSite, alive: Int64[Tensor, "_"]) -> Float[np.ndarray, " latent"]:
        """For some of the alive latents; NaN beyond, if fewer are alive."""
        rows = at.rows(alive).double().cpu()
        drawn = np.random.default_rng(self.seed).permutation(len(rows))[:LATENTS]
        found = np.full(LATENTS, np.nan)
        if len(rows) > 1:
            found[: len(drawn)] = nearest_cosines(rows, torch.from_numpy(drawn)).numpy()
        return found


def nearest_cosines(rows: Float[Tensor, "row d"], drawn: Int64[Tensor, " drawn"]) -> Float[Tensor, " drawn"]:
    """The largest cosine of each drawn row with any other row."""
    units = rows / rows.norm(dim=-1, keepdim=True)
    found = []
    for part in drawn.split(ROWS_AT_ONCE):
        cosines = units[part] @ units.T
        cosines[torch.arange(len(part)), part] = -1.0
        found.append(cosines.max(dim=-1).values)
    return torch.cat(found)


def _alive(
    model: SplitModel, ids: Int64[Tensor, "sequence position"], saes: Sequence[SAEAtSite]
) -> list[Int64[Tensor, "_"]]:
    """Of each SAE at one site, the latents that are active at some token, and whose row has a length."""
    active = [torch.zeros(at.size, dtype=torch.bool) for at in saes]
    for some in progress(list(ids.split(SHARD)), "latents"):
        activation = model.start(some, saes[0].site).activation.flatten(0, 1)
        for one, at in zip(active, saes, strict=True):
            for _, latents in at.pieces(activation):
                one |= (latents > 0).any(0).cpu()
    return [at.not_zero[one[at.not_zero]] for one, at in zip(active, saes, strict=True)]
