"""Checks that every run makes before it measures: the split model must be the same function as the whole one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun
from tiltmeter.models.failures import explained
from tiltmeter.models.own_readouts import CheckedReadout
from tiltmeter.models.positions import Positions
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.2, torch.float16: 5e-2}
"""Largest allowed difference between two computations of one token's values, relative to these values.

Some families compute their norms in float32 whatever the precision.
"""

ROUNDED = 0.1
"""The same for changes that are carried with rounded operands (`SplitModel.rounding`). What is found out is a wrong
function, whose error is as large as the change itself."""

ROUNDING_STEPS = 64
"""Rounding errors of a number that are not counted, in its last digits: a sum over layers rounds once per layer."""

VISIBLE = 1e-3
"""Change of a token's hidden states, relative to their norm, that rounding does not hide."""

MOST_ENLARGEMENTS = 3
"""How often a change that is not visible is multiplied by ten."""

LARGEST_LEFT_OUT = 0.01
"""Part of a token's numbers, the largest ones, that do not count in its scale: at least one. A massive activation is
one number, and would hide any error in the others."""


def check_split(model: SplitModel, clean: CleanRun) -> None:
    """Compare the split model with the whole one: its head, and resumed passes with and without a strong perturbation.

    Raises:
        TiltmeterError: they differ, so this model cannot be split as others can; or the whole model's outputs are not
            finite.
    """
    x = clean.span.cut(clean.activation)
    logits = model.last_logits(clean)
    if not bool(torch.isfinite(clean.late.final).all() and torch.isfinite(logits).all()):
        raise TiltmeterError(
            f"The outputs of {model.name} are not finite on these tokens; check its weights. Logits of minus infinity, "
            "for tokens that do not exist, are not measured: give them a large negative bias instead."
        )
    final = clean.late.final
    _refuse(model, clean, "its head", _error(model.logits(final[:, -1]), logits, logits))
    _refuse(model, clean, "an unperturbed resumed pass", _error(model.resume(clean, x).final, final, final))
    change, moved = _visible_change(model, clean, x)
    found = final + model.changes(clean, change[None]).final[0]
    scale = torch.where(_is_visible(moved, final)[..., None], moved - final, VISIBLE * final)
    _refuse(model, clean, "a perturbed resumed pass", _error(found, moved, scale), model.rounding)


def _visible_change(model: SplitModel, clean: CleanRun, x: Tensor) -> tuple[Tensor, Tensor]:
    """A strong change of the activation `x`, and the whole model's final hidden states after it.

    What queries or keys do to nearly uniform attention is small. It is made larger until it is not lost in the rounding
    of the whole model's two passes, whose difference is what the split model is compared with.
    """
    change, final = x.flip(-1) * 0.5, clean.late.final
    moved = _full_pass(model, clean, x + change)
    for _ in range(MOST_ENLARGEMENTS):
        if bool(_is_visible(moved, final).any()):
            break
        change = 10 * change
        moved = _full_pass(model, clean, x + change)
    return change, moved


def _is_visible(moved: Tensor, final: Tensor) -> Tensor:
    """Which tokens moved by more than rounding hides: other queries, say, do nothing to a first token."""
    return (moved - final).norm(dim=-1) > VISIBLE * final.norm(dim=-1)


def check_head(model: SplitModel, ids: Int[Tensor, "sequence position"], most: int = 256) -> None:
    """Check that logits depend on hidden states alone, for at most so many of the ids that occur.

    Raises:
        TiltmeterError: they depend on the token ids, too.
    """
    different = ids.unique()
    every = -(-len(different) // most)
    if model.head.reads_ids(different[::every]):
        raise TiltmeterError(
            f"The logits of {model.name} depend on the token ids besides the final hidden states, so its head cannot "
            "be run alone; remove what reads them (a hook?)."
        )


def check_additive(model: SplitModel, tokens: Tensor, site: Site) -> None:
    """Check that the outputs of a block's attention and MLP add up to its change of the residual stream.

    At `hook_resid_mid`, check that what is read there is the stream with attention's output added, and that what is put
    there goes on to the end of the block.

    Some families add the stream inside these modules, or scale their outputs afterwards; there, hook_attn_out and
    hook_mlp_out would not be what they are in TransformerLens.

    Raises:
        TiltmeterError: they do not add up.
    """
    if site.kind not in ("attn_out", "mlp_out", "resid_mid"):
        return
    end = Site(site.layer, "resid_post")
    writes = [one for kind in ("attn_out", "mlp_out") if model.has(one := Site(site.layer, kind)) or one == site]
    middle = [site] if site.kind == "resid_mid" else []
    run = model.start(tokens, Site(site.layer, "resid_pre"), [*writes, *middle, end])
    after, *written = (run.late.sites[one] for one in (end, *writes))
    added = torch.stack(written).sum(0)
    error = _error(run.activation + added, after, added)
    for one in middle:  # a site in the middle is only found where there is an attention, which is the first to write
        read = _error(run.activation + written[0], run.late.sites[one], written[0])
        error = max(error, read, _moved_middle_error(model, tokens, one))
    if not error <= TOLERANCE[after.dtype]:
        raise TiltmeterError(
            f"In {model.name} the outputs of attention and MLP are not what is added to the stream, so {site.name} "
            f"cannot be measured (they differ by {error:.1e} of what is added to a token); use hook_resid_pre or "
            "hook_resid_post."
        )


def _moved_middle_error(model: SplitModel, tokens: Tensor, site: Site) -> float:
    """How far what leaves a block is from a stream that is put in its middle plus what the MLP then writes."""
    end, mlp = Site(site.layer, "resid_post"), Site(site.layer, "mlp_out")
    run = model.start(tokens, site, [mlp, end])
    moved = run.activation + 0.5 * run.activation.flip(-1)
    late = model.resume(run, moved).sites
    return _error(moved + late[mlp], late[end], late[mlp])


def check_functions(
    model: SplitModel, tokens: Tensor, site: Site, readouts: Sequence[Readout], positions: Positions
) -> None:
    """Run the user's functions among the readouts once, on a strong perturbation, with the checks of `CheckedReadout`.

    Raises:
        TiltmeterError: a function fails, or does not return one number per token that depends on this token alone and
            is the same when called again.
    """
    own = [replace(one, own=CheckedReadout(**vars(one.own))) for one in readouts if one.own is not None]
    if not own:
        return
    clean = model.start(tokens, site, [one.site for one in own if one.site is not None], positions.span)
    change = clean.span.cut(clean.activation).flip(-1) * 0.5
    compute_readouts(model, clean, model.changes(clean, change[None]), own, positions.read)


def _error(found: Tensor, expected: Tensor, scale: Tensor) -> float:
    """The largest difference of a token's numbers, relative to the norm of its scale.

    Numbers count as equal if they differ by no more than the rounding of the expected one. The scale leaves out each
    token's largest numbers, so that no single one of them can hide an error.
    """
    eps = torch.finfo(expected.dtype).eps
    excess = ((found - expected).abs() - ROUNDING_STEPS * eps * expected.abs()).clamp(min=0)
    count = max(1, round(LARGEST_LEFT_OUT * scale.shape[-1]))
    kept = scale.double().abs().sort(-1).values[..., : max(1, scale.shape[-1] - count)]
    error = excess.double().norm(dim=-1) / kept.norm(dim=-1).clamp(min=1e-30)
    return float(error.max())


def _refuse(model: SplitModel, clean: CleanRun, what: str, error: float, rounding: torch.dtype | None = None) -> None:
    if not error <= (TOLERANCE[clean.activation.dtype] if rounding is None else ROUNDED):
        raise TiltmeterError(
            f"{model.name} cannot be split at {clean.site.name}: {what} differs from the whole model by {error:.1e} of "
            "a token's values; measure at another site, or with --positions all."
        )


@torch.no_grad()
def _full_pass(model: SplitModel, clean: CleanRun, point: Tensor) -> Tensor:
    full = model.whole(clean).clone()
    full[:, clean.span.first : clean.span.stop] = point
    before = Site(clean.site.layer, "resid_pre")
    entry = model.activation(clean.tokens, before) if clean.site.kind == "resid_mid" else full
    with explained(model.hf, "running the whole model"), model.placed(clean.site, full, entry):
        final = model.trunk(clean.tokens)
    return clean.span.cut(final)
