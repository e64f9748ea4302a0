"""Facts of every token that a sweep does not store: id, frequency, clean loss, norm at a site, L0 of an SAE there.

A dataset of facts has the dimensions `sequence` and `position`, the variables

- `token`: its id;
- `frequency`: the fraction of all tokens of the token set that have this id;
- `loss`: the clean cross-entropy of the token that follows, nats; NaN at the last position;
- `norm`: ‖x‖ at the site, as measured;
- `l0`: how many latents of the SAE fire (f > 0);

and the attributes `model`, `site`, `sae` (its label), `tokens`, and `strings`, JSON of the tokens' texts by id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

FILE = "facts.nc"

SHARD = 16
"""Sequences a shard, as in sweeps."""

_ABOUT = {
    "token": ("token", "id"),
    "frequency": ("fraction of all tokens", "1"),
    "loss": ("clean next-token loss", "nats"),
    "norm": ("norm of the activation", "L2"),
    "l0": ("latents that fire", "latents"),
}
_UNKNOWN_LOSS = float("nan")


@dataclass(frozen=True)
class TokenFacts:
    """Facts of the tokens of the first sequences, as an experiment of a study."""

    site: str
    saes: tuple[str]
    """One SAE, by its name for `load_sae`."""
    sequences: int

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Measure, or go on measuring, into the run directory `out`; its `facts.nc` is what this returns.

        Raises:
            TiltmeterError: wrong input; `out` is in use or belongs to another run.
        """
        site = loaded.model.site(self.site)
        ((label, name),) = sae_names(self.saes, site).items()
        at = load_at_site(name, loaded.model, site)
        with run_directory.open_run(
            out,
            self._identity(loaded, tokens, at),
            lambda: provenance.record(loaded, tokens) | {"purpose": purpose},
        ) as run:
            check_behaviour(run, loaded.model, tokens.ids[:2])
            facts = _dataset(self._measured(loaded.model, tokens, at, run), tokens)
            facts = facts.assign_attrs(_attrs(loaded, tokens, facts, at, label))
            run.write_bytes(FILE, bytes(facts.to_netcdf(engine="scipy")))
        return facts

    def _identity(self, loaded: LoadedModel, tokens: TokenSet, at: SAEAtSite) -> dict[str, Any]:
        facts = {"site": at.site.name, "sequences": self.sequences, "sae": at.sae.about.sha256}
        return provenance.identity(loaded, tokens) | {"facts": facts}

    def _measured(
        self, model: SplitModel, tokens: TokenSet, at: SAEAtSite, run: run_directory.Run
    ) -> dict[str, Float[np.ndarray, "sequence position"]]:
        """`loss`, `norm` and `l0`, shard by shard. A finished shard is never computed again."""
        ids = tokens.ids[: self.sequences]
        parts = []
        for number, some in enumerate(progress(list(ids.split(SHARD)), "token facts")):
            name = f"shard-{number:05d}"
            if (arrays := run.load(name)) is None:
                run.save(name, arrays := _measure(model, some, at))
            parts.append(arrays)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _measure(
    model: SplitModel, ids: Int64[Tensor, "batch position"], at: SAEAtSite
) -> dict[str, Float[np.ndarray, "batch position"]]:
    clean = model.start(ids, at.site)
    fired = [(latents > 0).sum(-1) for _, latents in at.pieces(clean.activation.flatten(0, 1))]
    return {
        "loss": np.stack([_losses(model, final, row) for final, row in zip(clean.late.final, ids, strict=True)]),
        "norm": clean.activation.double().norm(dim=-1).cpu().numpy(),
        "l0": torch.cat(fired).reshape(ids.shape).double().cpu().numpy(),
    }


@torch.no_grad()
def _losses(
    model: SplitModel, final: Float[Tensor, "position d_model"], ids: Int64[Tensor, " position"]
) -> Float[np.ndarray, " position"]:
    """Cross-entropy of the token that follows each, nats; one sequence at a time, to bound the memory for logits."""
    log_p = model.logits(final[:-1]).double().log_softmax(-1).cpu()
    return np.append(-log_p.gather(1, ids[1:, None])[:, 0].numpy(), _UNKNOWN_LOSS)


def _dataset(measured: dict[str, Float[np.ndarray, "sequence position"]], tokens: TokenSet) -> xr.Dataset:
    ids = tokens.ids[: len(measured["loss"])].numpy()
    found = np.bincount(tokens.ids.numpy().ravel())
    values = {"token": ids.astype(np.int32), "frequency": found[ids] / tokens.ids.numel(), **measured}
    coords = {"sequence": np.arange(len(ids), dtype=np.int32), "position": np.arange(ids.shape[1], dtype=np.int32)}
    variables = {
        name: xr.Variable(("sequence", "position"), values[name], {"long_name": long_name, "units": units})
        for name, (long_name, units) in _ABOUT.items()
    }
    return xr.Dataset(variables, coords)


def _attrs(loaded: LoadedModel, tokens: TokenSet, facts: xr.Dataset, at: SAEAtSite, label: str) -> dict[str, str]:
    return {
        "model": loaded.model.name,
        "site": at.site.name,
        "sae": label,
        "tokens": tokens.name,
        "strings": json.dumps(strings(loaded, np.unique(facts.token))),
    }


def strings(loaded: LoadedModel, ids: Int64[np.ndarray, " token"] | np.ndarray) -> dict[str, str]:
    """The texts of tokens by id; without a tokenizer, `token 17`."""
    if loaded.tokenizer is None:
        return {str(one): f"token {one}" for one in ids}
    return {str(one): str(loaded.tokenizer.decode([int(one)])) for one in ids}


def strings_of(facts: xr.Dataset) -> dict[int, str]:
    """The texts of tokens by id, as the dataset holds them."""
    return {int(one): text for one, text in json.loads(facts.attrs["strings"]).items()}
