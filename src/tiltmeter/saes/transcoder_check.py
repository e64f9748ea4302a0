"""What a transcoder reads in a model, and whether it performs there: the load check of transcoders.

The input is where such files go wrong: with and without the weights of the norm, activations have other sizes, and the
transcoder's output is meaningless without any error being raised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.analysis.massive import ordinary
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.mlp_input import MLPInput
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import TranscoderAtSite
from tiltmeter.saes.compatibility import stream_disagreement
from tiltmeter.saes.evaluation import finite_or_none, massive_limit, not_boundary

HIGH = 0.5
"""The error's share of the variance of the MLP's output above which a transcoder is warned of."""

BATCH = 8
"""Sequences run at once."""

MUCH = 0.5
"""Another input is named if the share is smaller by this factor with it."""


@dataclass(frozen=True)
class TranscoderCheck:
    """Metrics of a transcoder where it is used. Boundary positions and massive activations do not count."""

    reads: MLPInput
    l0: float
    """Active latents per token."""
    explained_variance: float
    """1 - Σ‖x - T(u)‖² / Σ‖x - mean of x‖²; x is the MLP's output."""
    distance: float
    """Mean of ‖x - T(u)‖, L2."""
    tokens: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The entry in the manifest. Numbers that are not finite become None, since JSON has none."""
        return finite_or_none(asdict(self))


@torch.no_grad()
def check_transcoder(model: SplitModel, at: TranscoderAtSite, tokens: TokenSet, budget: int = 4096) -> TranscoderCheck:
    """Measure a transcoder where it is used, and warn if its error is large, naming an input with which it is not.

    Args:
        model: the model, set to the stream (centred or raw) in which activations are measured.
        at: the transcoder at its site.
        tokens: token sequences, of which the first are used.
        budget: how many tokens to use; at least one sequence is used.

    Raises:
        TiltmeterError: the transcoder's input is not found in the model, or its output is not finite.
    """
    ids = tokens.ids[: max(1, budget // tokens.ids.shape[1])]
    at.read(ids[:1])
    x = torch.cat([model.activation(rows, at.site) for rows in ids.split(BATCH)])
    above = massive_limit(model, ids, tokens.boundary, at.site)
    counted = (not_boundary(ids, tokens.boundary) & ordinary(x, above)).to(x.device)
    parts = [at.possible(rows) for rows in ids.split(BATCH)]
    inputs = {key: torch.cat([one[key] for one in parts])[counted] for key in parts[0]}
    x = x[counted].double()
    l0, error = _error(at, inputs[at.sae.reads], x)
    if not bool(torch.isfinite(error).all()):
        raise TiltmeterError(f"The output of the transcoder {at.name} is not finite; give one of this model and layer.")
    spread = float((x - x.mean(0)).square().sum())
    share = float(error.square().sum()) / spread if spread else math.nan
    warnings = [_warning(at, share, inputs, x, spread)] if share > HIGH else []
    if at.sae.about.processing == "centred" and (disagreement := stream_disagreement(at.sae, model, at.site)):
        warnings.append(disagreement)
    return TranscoderCheck(at.sae.reads, l0, 1 - share, float(error.mean()), len(x), tuple(warnings))


def _error(at: TranscoderAtSite, u: Float[Tensor, "token d_in"], x: Tensor) -> tuple[float, Float[Tensor, "token"]]:
    """L0, and the length of the error at each token."""
    fired, lengths = 0, []
    for part, latents, y in at.outputs(u):
        fired += int((latents > 0).sum())
        lengths.append((y.double() - x[part]).norm(dim=-1))
    return fired / len(u), torch.cat(lengths)


def _warning(at: TranscoderAtSite, share: float, inputs: Mapping[MLPInput, Tensor], x: Tensor, spread: float) -> str:
    others = {
        key: float(_error(at, u, x)[1].square().sum()) / spread for key, u in inputs.items() if key != at.sae.reads
    }
    best = min(others, key=lambda key: others[key], default=None)
    cause = (
        f"with {best} as its input it would be {others[best]:.3g}, so its files probably name another input than it has"
        if best is not None and others[best] < MUCH * share
        else "no other input of the MLP makes it much smaller, so check that it is of this model and layer"
    )
    return (
        f"The error of the transcoder {at.name}, which reads {at.sae.reads}, has {share:.3g} of the variance of "
        f"{at.site.name}; {cause}."
    )
