"""What a model computes, stored with a run: no description can list all that its hooks and modules read."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.failures import explained
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.run_directory import Run

NAME = "behaviour"
"""Its name among the arrays of a run."""

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest difference from what is stored, relative to the norm: above the rounding of other machines."""

LOGITS = 256
"""Number of logits, evenly spaced over the vocabulary, that are stored."""


def check_behaviour(run: Run, model: SplitModel, ids: Int[Tensor, "sequence position"]) -> None:
    """Store what the model computes on these tokens, or refuse to go on if it is not what is stored.

    Raises:
        TiltmeterError: the run was begun with a model that computed something else.
    """
    found, stored = _behaviour(model, ids), run.load(NAME)
    if stored is None:
        run.save(NAME, found)
        return
    error = max(_error(found[key], stored[key]) for key in found)
    if not error <= TOLERANCE[model.hf.dtype]:
        raise TiltmeterError(
            f"{run.path} was begun with a model that computed something else (its outputs differ by {error:.1e} "
            "of their norm), though its configuration and weights are the same: a hook or a function in it reads "
            "something that has changed. Choose another directory (--out)."
        )


def _error(found: Float64[np.ndarray, "..."], stored: Float64[np.ndarray, "..."]) -> float:
    return float(np.linalg.norm(found - stored)) / max(float(np.linalg.norm(stored)), 1e-30)


@torch.no_grad()
def _behaviour(model: SplitModel, ids: Int[Tensor, "sequence position"]) -> dict[str, Float64[np.ndarray, "..."]]:
    """Mean final hidden state of each sequence, and some logits of its last position."""
    with explained(model.hf, "running the whole model"):
        final = model.trunk(ids)
        logits = model.last_logits_of(ids)
    spaced = torch.linspace(0, logits.shape[-1] - 1, min(LOGITS, logits.shape[-1])).round().long()
    return {
        "final": final.double().mean(1).cpu().numpy(),
        "logits": logits[:, spaced.to(logits.device)].double().cpu().numpy(),
    }
