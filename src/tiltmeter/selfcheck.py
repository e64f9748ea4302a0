"""What every run checks of itself before it measures anything."""

from __future__ import annotations

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.hooks import replaced
from tiltmeter.model import CleanRun, SplitModel

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.2, torch.float16: 5e-2}
"""Largest allowed difference of two ways to the same final hidden states, relative to their largest entry."""


def check_split(model: SplitModel, clean: CleanRun) -> None:
    """Compare a resumed pass with a full pass whose activation a hook replaces: unperturbed, and strongly perturbed.

    Raises:
        TiltmeterError: they differ; this model cannot be split the way others can.
    """
    x = clean.span.cut(clean.activation)
    pushed = x + x.flip(-1) * 0.5
    for what, point in {"unperturbed": x, "perturbed": pushed}.items():
        expected = clean.late.final if what == "unperturbed" else _full_pass(model, clean, point)
        difference = (model.resume(clean, point).final - expected).abs().max() / expected.abs().max()
        if not difference <= TOLERANCE[expected.dtype]:
            raise TiltmeterError(
                f"{model.name} cannot be split at {clean.site.name}: an {what} resumed pass differs from the full one "
                f"by {float(difference):.1e} of the largest value; please report this model."
            )


@torch.no_grad()
def _full_pass(model: SplitModel, clean: CleanRun, point: Tensor) -> Tensor:
    full = clean.activation.clone()
    full[:, clean.span.first : clean.span.stop] = point
    with replaced(*model.tap(clean.site), full):
        final = model.anatomy.trunk(input_ids=clean.tokens.to(model.device), use_cache=False).last_hidden_state
    return clean.span.cut(final)
