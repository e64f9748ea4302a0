"""Checks that every run makes before it measures: the split model must be the same function as the whole one."""

from __future__ import annotations

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun
from tiltmeter.models.failures import explained
from tiltmeter.models.hooks import replaced
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.2, torch.float16: 5e-2}
"""Largest allowed difference between two computations of the same values, relative to the largest value.

Some families compute their norms in float32 whatever the precision.
"""


def check_split(model: SplitModel, clean: CleanRun) -> None:
    """Compare the split model with the whole one: its head, and resumed passes with and without a strong perturbation.

    Raises:
        TiltmeterError: they differ, so this model cannot be split as others can; or the whole model's outputs are not
            finite.
    """
    x = clean.span.cut(clean.activation)
    change = x.flip(-1) * 0.5
    logits = model.last_logits(clean)
    if not bool(torch.isfinite(clean.late.final).all() and torch.isfinite(logits).all()):
        raise TiltmeterError(f"The outputs of {model.name} are not finite on these tokens; check its weights.")
    _check_equal(model, clean, "its head", model.logits(clean.late.final[:, -1]), logits)
    _check_equal(model, clean, "an unperturbed resumed pass", model.resume(clean, x).final, clean.late.final)
    perturbed = clean.late.final + model.changes(clean, change[None]).final[0]
    _check_equal(model, clean, "a perturbed resumed pass", perturbed, _full_pass(model, clean, x + change))


def check_additive(model: SplitModel, tokens: Tensor, site: Site) -> None:
    """Check that the outputs of a block's attention and MLP add up to its change of the residual stream.

    Some families add the stream inside these modules, or scale their outputs afterwards; there, hook_attn_out and
    hook_mlp_out would not be what they are in TransformerLens.

    Raises:
        TiltmeterError: they do not add up.
    """
    if site.kind not in ("attn_out", "mlp_out"):
        return
    end = Site(site.layer, "resid_post")
    writes = [one for kind in ("attn_out", "mlp_out") if model.has(one := Site(site.layer, kind)) or one == site]
    run = model.start(tokens, Site(site.layer, "resid_pre"), [*writes, end])
    after, *written = (run.late.sites[one] for one in (end, *writes))
    missing = (after - run.activation - sum(written)).abs().max() / after.abs().max().clamp(min=1e-30)
    if not missing <= TOLERANCE[after.dtype]:
        raise TiltmeterError(
            f"In {model.name} the outputs of attention and MLP are not what is added to the stream, so {site.name} "
            "cannot be measured; use hook_resid_pre or hook_resid_post."
        )


def _check_equal(model: SplitModel, clean: CleanRun, what: str, found: Tensor, expected: Tensor) -> None:
    difference = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    if not difference <= TOLERANCE[expected.dtype]:
        raise TiltmeterError(
            f"{model.name} cannot be split at {clean.site.name}: {what} differs from the whole model by "
            f"{float(difference):.1e} of the largest value; measure at another site, or with --positions all."
        )


@torch.no_grad()
def _full_pass(model: SplitModel, clean: CleanRun, point: Tensor) -> Tensor:
    full = model.whole(clean).clone()
    full[:, clean.span.first : clean.span.stop] = point
    with explained(model.hf, "running the whole model"), replaced(*model.tap(clean.site), full):
        final = model.parts.trunk(input_ids=clean.tokens.to(model.device), use_cache=False).last_hidden_state
    return clean.span.cut(final)
