"""Next-token predictions of a model, clean and with the activation at one token replaced: the likeliest tokens.

A dataset of predictions has the dimensions `case` (a prompt), `run` (`clean`, and one for each substitute) and `rank`
(the likeliest token of the clean run first), the variables `log_probability` and `kl` (KL(clean ‖ run), nats), and
the attributes `model`, `site`, `sae`, `tokens`, `prompts` (JSON: the end of each prompt's text) and `predicted` (JSON:
for each prompt, the texts of its tokens by rank).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64, Int64
from torch import Tensor

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models import provenance
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.positions import Span
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.directions import Direction, Plain, normalise
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.registry import rng_key
from tiltmeter.perturb.sae_directions import SAEError
from tiltmeter.perturb.sources import Context, Isotropic
from tiltmeter.perturb.substitutions import AtDistance
from tiltmeter.runs import run_directory
from tiltmeter.runs.rng import Address
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.names import load_at_site, sae_names
from tiltmeter.studies.token_facts import FILE, strings

TOP = 25
"""How many of the likeliest tokens are kept."""

SHOWN = 48
"""How many characters of a prompt's end are kept."""


@dataclass(frozen=True)
class Predictions:
    """Next-token predictions with x at one token replaced by SAE(x), and by a random point at the same distance.

    The random points are those of a sweep with the same seed.
    """

    site: str
    saes: tuple[str]
    """One SAE, by its name for `load_sae`."""
    cases: tuple[int, ...]
    """Indices of sequences in the token set."""
    position: int
    """The token whose activation is replaced; what follows it is predicted."""
    prompts: tuple[str, ...] = ()
    """Your own texts, used in place of sequences of the token set; the activation at their last token is replaced."""
    seed: int = 0

    @property
    def sequences(self) -> int:
        """How many sequences it uses: up to the last of `cases`."""
        return max((*self.cases, 0)) + 1

    def run(self, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> xr.Dataset:
        """Measure into the run directory `out`; its `facts.nc` is what this returns.

        Raises:
            TiltmeterError: wrong input; `out` is in use or belongs to another run; a text without a tokenizer.
        """
        site = loaded.model.site(self.site)
        ((label, name),) = sae_names(self.saes, site).items()
        at = load_at_site(name, loaded.model, site)
        identity = provenance.identity(loaded, tokens) | {
            "predictions": asdict(self) | {"saes": [at.sae.about.sha256], "site": at.site.name}
        }
        with run_directory.open_run(
            out, identity, lambda: provenance.record(loaded, tokens) | {"purpose": purpose}
        ) as run:
            found = _dataset(
                loaded, [self._predict(loaded.model, at, label, case) for case in self._read(loaded, tokens)]
            )
            found = found.assign_attrs(model=loaded.model.name, site=at.site.name, sae=label, tokens=tokens.name)
            run.write_bytes(FILE, bytes(found.to_netcdf(engine="scipy")))
        return found

    def _read(self, loaded: LoadedModel, tokens: TokenSet) -> list[_Case]:
        if not self.prompts:
            cut = tokens.ids[:, : self.position + 1]
            return [_Case(number, cut[number]) for number in self.cases if number < len(cut)]
        if loaded.tokenizer is None:
            raise TiltmeterError(f"{loaded.model.name} has no tokenizer, so no text can be its prompt; give none.")
        return [
            _Case(number, torch.tensor(loaded.tokenizer(text)["input_ids"])) for number, text in enumerate(self.prompts)
        ]

    @torch.no_grad()
    def _predict(self, model: SplitModel, at: SAEAtSite, label: str, case: _Case) -> _Prediction:
        last = len(case.ids) - 1
        clean = model.start(case.ids[None], at.site, (), Span(last, last + 1))
        directions: dict[DirectionName, Direction] = {
            DirectionName("sae-error", label): SAEError(at),
            DirectionName("epsilon-random", label): AtDistance(at, Plain(Isotropic(clean.activation.shape[-1]))),
        }
        log_p = {"clean": model.logits(clean.late.final[0])[0].double().log_softmax(-1).cpu()}
        x = clean.activation[:, last:]
        counted = torch.ones(1, last + 1, dtype=torch.bool, device=x.device)
        for name, direction in directions.items():
            address = Address(self.seed, rng_key(name), torch.tensor([case.number]), torch.tensor([last]))
            context = Context(x, address, lambda: clean.activation, lambda: counted)
            perturbation = normalise(direction, context, lambda vector: model.centre(vector, at.site))
            final = model.resume(clean, (x + perturbation.vector)[None]).final
            log_p[name.kind] = model.logits(final[0, 0])[0].double().log_softmax(-1).cpu()
        return _Prediction(case.ids, log_p)


@dataclass(frozen=True)
class _Case:
    number: int
    """Index of the sequence in the token set, or of the text in `prompts`."""
    ids: Int64[Tensor, " position"]


@dataclass(frozen=True)
class _Prediction:
    ids: Int64[Tensor, " position"]
    log_p: dict[str, Float64[Tensor, " vocabulary"]]


def _dataset(loaded: LoadedModel, found: list[_Prediction]) -> xr.Dataset:
    top = min(TOP, loaded.model.vocabulary)
    best = [one.log_p["clean"].topk(top).indices for one in found]
    kept = [
        np.stack([log_p[ids].numpy() for log_p in one.log_p.values()]) for one, ids in zip(found, best, strict=True)
    ]
    variables: dict[str, Any] = {
        "log_probability": (("case", "run", "rank"), np.stack(kept), {"units": "nats"}),
        "kl": (("case", "run"), np.array([[_kl(one.log_p["clean"], q) for q in one.log_p.values()] for one in found])),
    }
    coords = {"run": list(found[0].log_p), "rank": np.arange(top, dtype=np.int32)}
    texts = [strings(loaded, ids.numpy()) for ids in best]
    return xr.Dataset(
        variables,
        coords,
        {
            "prompts": json.dumps([_end(loaded, one.ids) for one in found]),
            "predicted": json.dumps(
                [[text[str(one)] for one in ids.tolist()] for text, ids in zip(texts, best, strict=True)]
            ),
        },
    )


def _kl(log_p: Float64[Tensor, " vocabulary"], log_q: Float64[Tensor, " vocabulary"]) -> float:
    return float((log_p.exp() * (log_p - log_q)).sum())


def _end(loaded: LoadedModel, ids: Int64[Tensor, " position"]) -> str:
    """The last characters of a prompt's text."""
    if loaded.tokenizer is None:
        return " ".join(map(str, ids.tolist()))[-SHOWN:]
    return str(loaded.tokenizer.decode(ids.tolist()))[-SHOWN:]
