"""The attention, the MLP and their matrices inside one block, found by what they write in one small forward pass.

The attention and MLP of a block are the two modules whose outputs add up to what the block adds to the stream. Where a
family normalises these outputs, that is after the norm, as in TransformerLens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from tiltmeter.models.attention_heads import AttentionHeads, find_heads, recorded
from tiltmeter.models.failures import explained
from tiltmeter.models.hooks import Call, Place, is_matrix, same, traced
from tiltmeter.models.probe import probe_tokens
from tiltmeter.models.sites import OF_HEADS


@dataclass(frozen=True)
class BlockParts:
    """Where the activations inside one block are."""

    places: Mapping[str, Place]
    """By the kind of site; a kind that the block does not have is missing."""
    find: Callable[[], AttentionHeads | None]
    """Finds the heads of its attention, which takes several runs of the block."""
    obstacle: str | None = None
    """Why what attention and MLP write was not found, where that is known."""

    @cached_property
    def heads(self) -> AttentionHeads | None:
        """None if no queries, keys and values were found."""
        return self.find()

    def has(self, kind: str) -> bool:
        """Whether the block has this kind of site."""
        return kind in self.places or (kind in OF_HEADS and self.heads is not None)


FLATTENED = (
    "the MLP is computed on all tokens in one list [batch · position, width], where a token's sequence and position are "
    "not known"
)

NO_PARTS = BlockParts(MappingProxyType({}), lambda: None)
"""Those of a block that does not run."""


def find_block_parts(model: nn.Module, block: nn.Module) -> BlockParts:
    """Find the insides of a block by a trace of what its modules read and write.

    Raises:
        TiltmeterError: the model fails.
    """
    tokens = probe_tokens(model).to(model.device)  # type: ignore[arg-type]
    modules = dict(block.named_modules())
    with explained(model, "running it on a few tokens"), recorded(block) as alone, traced(modules) as calls:
        model(input_ids=tokens, use_cache=False)
    whole = next(call for call in calls if call.name == "")
    counts = {name: sum(call.name == name for call in calls) for name in modules}
    once = [call for call in calls if call.name and counts[call.name] == 1]
    attention, mlp = _writers(whole, once)
    output = _last_matrix([one for one in once if _is_attention(one.name)], attention)
    down = mlp if mlp and is_matrix(mlp) else _last_matrix([one for one in once if is_mlp(one.name)], mlp)
    found = {
        "attn_out": _at(attention, "output"),
        "mlp_out": _at(mlp, "output"),
        "z": _at(output, "input"),
        "mlp_pre": _activation(once, down),
        "mlp_post": _at(down, "input"),
        "resid_mid": _at(_middle_reader(whole, once, attention, mlp), "input"),
    }
    n_heads = getattr(model.config.get_text_config(), "num_attention_heads", None)  # type: ignore[union-attr,operator]

    def find() -> AttentionHeads | None:
        return None if output is None else find_heads(alone[0], once, output, n_heads)

    places = {kind: place for kind, place in found.items() if place is not None}
    flat = mlp is None and any(call.shape == (tokens.numel(), whole.shape[-1]) for call in once if whole.shape)
    return BlockParts(places, find, FLATTENED if flat else None)


def _at(call: Call | None, side: Literal["input", "output"]) -> Place | None:
    return None if call is None else Place(call.module, side)


def _activation(calls: list[Call], down: Call | None) -> Place | None:
    """What the MLP's activation function reads; where it is no module, the only other matrix's output.

    In a gated MLP, TransformerLens's `mlp.hook_pre` is the gate before its activation function, too.
    """
    if down is None or down.entered is None:
        return None
    width = down.entered.shape
    inside = [
        call
        for call in calls
        if is_mlp(call.name) and call.order < down.order and call.left is not None and call.left.shape == width
    ]
    functions = [call for call in inside if _acts_on_each(call)]
    if len(functions) == 1:
        return Place(functions[0].module, "input")
    matrices = [call for call in inside if is_matrix(call)]
    return Place(matrices[0].module, "output") if not functions and len(matrices) == 1 else None


def _acts_on_each(call: Call) -> bool:
    """Whether a module is a function of each number alone: not the identity, and blind to the order of numbers."""
    entered, left = call.entered, call.left
    if entered is None or left is None or entered.shape != left.shape or same(entered, left):
        return False
    if any(True for _ in call.module.parameters()):
        return False
    with torch.no_grad():
        flipped = call.module(entered.flip(-1))
    return isinstance(flipped, Tensor) and torch.allclose(flipped.flip(-1), left, atol=1e-6, rtol=1e-3)


def _middle_reader(whole: Call, calls: list[Call], attention: Call | None, mlp: Call | None) -> Call | None:
    """The outermost module that reads what the stream is after attention and before the MLP: the norm, mostly."""
    if attention is None or mlp is None or attention.order > mlp.order:
        return None
    found = [
        call
        for call in calls
        if attention.order < call.order <= mlp.order
        and call.entered is not None
        and whole.entered is not None
        and call.entered.shape == whole.entered.shape
        and _adds_up(whole.entered, call.entered, attention.left)
    ]
    return min(found, key=lambda call: call.name.count("."), default=None)


def _writers(whole: Call, calls: list[Call]) -> tuple[Call | None, Call | None]:
    """The calls whose outputs add up to what the block adds to the stream: attention first, then MLP."""
    before, after = whole.entered, whole.left
    assert before is not None and after is not None
    writers = [call for call in calls if call.left is not None and call.left.shape == before.shape]
    writers.sort(key=lambda call: call.name.count("."))  # stable: shallow ones first, then in the order of return
    adds = partial(_adds_up, before, after)
    pairs = [(a, b) for a in writers for b in writers if a.order < b.order and adds(a.left, b.left)]
    if pairs:
        first, second = min(pairs, key=lambda pair: sum(call.name.count(".") for call in pair))
        return (second, first) if _is_attention(second.name) and not _is_attention(first.name) else (first, second)
    alone = next((call for call in writers if adds(call.left)), None)
    if alone is None:
        return None, None
    return (alone, None) if _is_attention(alone.name) else (None, alone if is_mlp(alone.name) else None)


def _adds_up(before: Tensor, after: Tensor, *writes: Tensor | None) -> bool:
    """Whether the stream before a block plus these writes is the stream after it, at every token."""
    parts = [part for part in writes if part is not None]
    error = (before + sum(parts) - after).abs().amax(-1)
    eps = torch.finfo(after.dtype).eps
    largest = torch.stack([part.abs().amax(-1) for part in parts]).amax(0)
    stream = torch.maximum(before.abs().amax(-1), after.abs().amax(-1))
    return bool((error <= 1e3 * eps * largest + 4 * eps * stream).all())


def _last_matrix(calls: list[Call], writer: Call | None) -> Call | None:
    """The last matrix in an attention or an MLP, whose output is the owner's own."""
    owners = [call for call in calls if not is_norm(call.name)]
    for owner in sorted(owners, key=lambda call: call.name.count(".")):
        targets = [one.left for one in (owner, writer) if one is not None and one.left is not None]
        inside = [call for call in calls if call.name.startswith(f"{owner.name}.") and is_matrix(call)]
        for call in reversed(inside):
            if any(same(call.left, target) for target in targets):
                return call
    return None


def _is_attention(name: str) -> bool:
    return "att" in name.lower()


def is_norm(name: str) -> bool:
    """Whether a module's path names a norm."""
    own = name.lower().rpartition(".")[2]
    return any(word in own for word in ("norm", "ln_", "dropout"))


def is_mlp(name: str) -> bool:
    """Whether a module's path names an MLP."""
    return any(word in name.lower() for word in ("mlp", "ffn", "feed", "moe", "ff"))
