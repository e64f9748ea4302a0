"""What the MLP of a block reads, as transcoders are trained on it.

There are three activations by that name. The stream after attention (`hook_resid_mid`) enters a norm; the norm divides
it by its size (`ln2.hook_normalized`), then multiplies it with weights and adds a bias; the result is what the MLP of
the Hugging Face model gets (`mlp.hook_in`). TransformerLens folds weights and bias into the MLP by default, so there
the last two are the same, and in the Hugging Face model they are not.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.block_parts import is_mlp, is_norm
from tiltmeter.models.failures import explained
from tiltmeter.models.hooks import Call, Place, captured, same, skipped, traced
from tiltmeter.models.probe import probe_tokens
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel

MLPInput = Literal["mlp.hook_in", "ln2.hook_normalized", "hook_resid_mid"]
"""Which of the three, by TransformerLens's names."""

NORMED = (0.5, 1.01)
"""Between which the mean square of a normalised activation lies: 1, or less where the norm's epsilon counts."""

PROBE = 1e4
"""Size of the activations by which a norm's weights are found; its epsilon does not count beside them."""


@dataclass(frozen=True)
class MLPReader:
    """The modules of one block through which its MLP reads the stream."""

    layer: int
    mlp: nn.Module
    norm: nn.Module | None
    """Its output is the MLP's input; None where the MLP reads the stream itself."""

    def inputs(self, model: SplitModel, tokens: Int[Tensor, "batch position"]) -> dict[MLPInput, Tensor]:
        """All three [batch, position, d_model], raw, of a clean run up to this block; those that the block has.

        Raises:
            TiltmeterError: the model fails.
        """
        with torch.no_grad(), explained(model.hf, f"running block {self.layer}"), ExitStack() as stack:
            if model.trunk.skips_later_blocks:
                later = range(self.layer + 1, model.n_layers)
                stack.enter_context(skipped(model.parts.blocks, later, model.parts.extras))
            read = stack.enter_context(captured(Place(self.mlp, "input")))
            entered = stack.enter_context(captured(Place(self.norm, "input"))) if self.norm is not None else read
            model.trunk(tokens)
        found: dict[MLPInput, Tensor] = {"mlp.hook_in": read[0], "hook_resid_mid": entered[0]}
        if self.norm is not None and (normalised := _unweighted(self.norm, read[0])) is not None:
            found["ln2.hook_normalized"] = normalised
        return found


def find_mlp_reader(model: SplitModel, layer: int) -> MLPReader:
    """Find the MLP of a block and the norm before it, by a trace of what its modules read and write.

    Where a family normalises the MLP's output, the MLP is what that norm reads.

    Raises:
        TiltmeterError: the block has no MLP of its own.
    """
    block, writer = model.parts.blocks[layer], model.parts.place(Site(layer, "mlp_out")).module
    modules = dict(block.named_modules())
    with explained(model.hf, "running it on a few tokens"), traced(modules) as calls:
        model.hf(input_ids=probe_tokens(model.hf).to(model.device), use_cache=False)
    inside = sorted((call for call in calls if call.name), key=lambda call: call.name.count("."))
    found = next(call for call in inside if call.module is writer)
    if is_norm(found.name):
        found = next((call for call in inside if _gives(call, found) and not is_norm(call.name)), found)
    if is_norm(found.name) or not is_mlp(found.name) or found.entered is None or found.entered.shape[-1] != model.width:
        raise TiltmeterError(
            f"In {type(model.hf).__name__} the MLP of block {layer} is no module of its own, so what it reads is not "
            "known; transcoder-error needs that."
        )
    norm = next((call for call in inside if is_norm(call.name) and _gives(call, found)), None)
    return MLPReader(layer, found.module, None if norm is None else norm.module)


def _gives(one: Call, other: Call) -> bool:
    """Whether what leaves one module is what enters another."""
    return one is not other and other.entered is not None and same(one.left, other.entered)


def _unweighted(norm: nn.Module, y: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch position d"] | None:
    """The output of a norm without its weights and bias; None where they cannot be removed.

    An activation of alternating ±1 is its own normalised value, and its negative's is the negative. So the outputs for
    the two are bias ± weights, whatever the family calls them.
    """
    if y.shape[-1] % 2:
        return None  # then ±1 has a mean
    signs = torch.ones(y.shape[-1]).to(y)
    signs[1::2] = -1
    with torch.no_grad():
        plus, minus = (norm(PROBE * sign * signs[None, None]) for sign in (1, -1))
    weights, bias = (plus - minus)[0, 0] / 2 * signs, (plus + minus)[0, 0] / 2
    found = (y - bias) / weights
    size = found.square().mean(-1)
    return found if bool(((size > NORMED[0]) & (size < NORMED[1])).double().mean() > 0.9) else None
