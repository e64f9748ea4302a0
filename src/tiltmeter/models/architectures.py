"""Find the parts of a Hugging Face decoder by what they do in one small forward pass.

Decoder families differ in the names of their modules, in what their blocks return, and in where the outputs of
attention and MLP are normalised. A trace of a few tokens shows all of that, so no family is listed here:

- the blocks are the longest list of modules that hand the residual stream from one to the next;
- the trunk is the innermost module around them that returns hidden states;
- the final norm is the module that reads what the last block wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from itertools import pairwise

import torch
from torch import Tensor, nn

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.block_parts import NO_PARTS, BlockParts, find_block_parts
from tiltmeter.models.failures import explained
from tiltmeter.models.hooks import Call, Place, same, traced
from tiltmeter.models.probe import POSITIONS, ROWS, probe_tokens
from tiltmeter.models.sites import OF_HEADS, Site


@dataclass(frozen=True)
class ModelParts:
    """The parts of one model that tiltmeter needs to reach."""

    model: nn.Module
    trunk: nn.Module
    """The whole model except the unembedding; in a multimodal model, its language model."""
    blocks: nn.ModuleList
    running: tuple[int, ...]
    """Which of the blocks run on text: those that attend to an image do not, and leave the stream as it is."""
    final_norm: nn.Module | None
    """The module that reads the stream after the last block; None if only the head does."""
    width: int
    final_width: int
    """Width of the final hidden states; some models project them once more."""
    extras: Mapping[int, tuple | None]
    """What each block returns after the stream; None where it returns the stream alone."""
    known: dict[int, BlockParts]
    """The insides of blocks, filled in as they are asked for."""
    found: dict[Site, Place] = field(default_factory=dict)
    """The same for sites inside blocks."""

    def inside(self, layer: int) -> BlockParts:
        """Where the activations inside a block are."""
        if layer not in self.known:
            ran = layer in self.running
            self.known[layer] = find_block_parts(self.model, self.blocks[layer]) if ran else NO_PARTS
        return self.known[layer]

    def place(self, site: Site) -> Place:
        """Where a site inside a block is.

        Raises:
            TiltmeterError: the block has no such activation.
        """
        if site not in self.found:
            self.found[site] = self._find(site)
        return self.found[site]

    def _find(self, site: Site) -> Place:
        inside = self.inside(site.layer)
        if site.kind in inside.places and site.head is None:
            return inside.places[site.kind]
        reason = NO_HEADS if site.head is not None else NO_PLACE.get(site.kind, NOT_FOUND)
        if inside.obstacle and site.kind in ("attn_out", "resid_mid", "mlp_pre", "mlp_post", "mlp_out"):
            reason = inside.obstacle
        if site.layer not in self.running:
            reason = f"block {site.layer} does not run on text"
        elif site.kind in OF_HEADS and inside.heads is not None:
            try:
                return inside.heads.place(site.kind, site.head)
            except TiltmeterError as error:
                reason = str(error)
        raise TiltmeterError(f"In {type(self.model).__name__} {reason}, so {site.name} cannot be measured; {INSTEAD}.")


NOT_FOUND = "the outputs of attention and MLP are not what is added to the stream"
NO_HEADS = "no queries, keys and values were found that act as such"
NO_PLACE = {
    **dict.fromkeys(("q", "k", "v"), NO_HEADS),
    "z": "no output projection of an attention was found in this block",
    "mlp_pre": "no activation function was found in this block's MLP",
    "mlp_post": "no matrix was found whose output is that of this block's MLP",
    "resid_mid": "no module of this block reads the stream between attention and MLP: they may be parallel",
}
"""Why a block does not have a kind of site."""

INSTEAD = "use hook_resid_pre or hook_resid_post"


def find_parts(model: nn.Module) -> ModelParts:
    """Find the parts of a Hugging Face causal language model by running it on a few tokens.

    Raises:
        TiltmeterError: the model is no decoder with a head, or has no residual stream [batch, position, width].
    """
    name = type(model).__name__
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise TiltmeterError(f"{name} is an encoder with a decoder; load a causal language model (a decoder alone).")
    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList) and module}
    calls = _trace(model, _outside(model, lists))
    path, blocks = _stream_blocks(name, lists, calls)
    running = tuple(index for index in range(len(blocks)) if f"{path}.{index}" in calls)
    last = calls[f"{path}.{running[-1]}"][0]
    trunk = _trunk(model, path, calls)
    return ModelParts(
        model=model,
        trunk=trunk.module,
        blocks=blocks,
        running=running,
        final_norm=_reader(trunk, path, last, calls),
        width=last.left.shape[-1],  # type: ignore[union-attr]
        final_width=trunk.shape[-1],  # type: ignore[index]
        extras=dict.fromkeys(range(len(blocks))) | {i: calls[f"{path}.{i}"][0].extras for i in running},
        known={},
    )


def ignores_mean(norm: nn.Module | None, like: Tensor) -> bool:
    """Whether a norm ignores a constant added to its input: true of LayerNorm, false of RMSNorm and where none is.

    `like` has the width, dtype and device of the residual stream.
    """
    if norm is None:
        return False
    probe = torch.linspace(-1, 1, like.shape[-1]).to(like).repeat(1, 1, 1)
    with torch.no_grad():
        return bool(torch.allclose(norm(probe), norm(probe + 0.5), atol=1e-3, rtol=1e-2))


def _outside(model: nn.Module, lists: Mapping[str, nn.ModuleList]) -> dict[str, nn.Module]:
    """All entries of lists of modules, and all modules that are inside no such entry."""
    entries = [f"{path}.{index}" for path, modules in lists.items() for index in range(len(modules))]
    inside = tuple(f"{entry}." for entry in entries)
    chosen = set(entries)
    return {path: m for path, m in model.named_modules() if path in chosen or not path.startswith(inside)}


def _trace(model: nn.Module, modules: Mapping[str, nn.Module]) -> dict[str, list[Call]]:
    """The calls of these modules when the model runs on a few tokens.

    Raises:
        TiltmeterError: the model fails, or does not predict a token at every position.
    """
    tokens = probe_tokens(model).to(model.device)  # type: ignore[arg-type]
    with explained(model, "running it on a few tokens"), traced(modules) as calls:
        logits = getattr(model(input_ids=tokens, use_cache=False), "logits", None)
    if isinstance(logits, Tensor) and logits.shape[:-1] != tokens.shape:
        raise TiltmeterError(
            f"{type(model).__name__} returns logits of shape {tuple(logits.shape)} for token ids of shape "
            f"{tuple(tokens.shape)}, so it does not predict the token after each; choose a causal language model."
        )
    by_name: dict[str, list[Call]] = {}
    for call in calls:
        by_name.setdefault(call.name, []).append(call)
    return by_name


def _stream_blocks(
    name: str, lists: Mapping[str, nn.ModuleList], calls: Mapping[str, list[Call]]
) -> tuple[str, nn.ModuleList]:
    """The longest list whose modules hand the stream from one to the next, and the path to it.

    A list that runs as a whole comes first. In another, the blocks that did not run left the stream as it was.
    """
    found: list[tuple[int, int, str, str | None]] = []
    for path, modules in lists.items():
        runs = [run for index in range(len(modules)) if (run := calls.get(f"{path}.{index}", []))]
        if len(runs) == len(modules) or len(runs) > 1:
            found.append((len(modules) - len(runs), -len(modules), path, _broken_chain(runs)))
    found.sort(key=lambda one: (one[0], one[1], one[2].count(".")))
    streams = [path for *_, path, obstacle in found if obstacle is None]
    if streams:
        _refuse_several(name, [path for path in streams if len(lists[path]) > 1])
        return streams[0], lists[streams[0]]
    outermost = min(found, key=lambda one: (one[2].count("."), one[1]), default=None)
    reason = f"in {outermost[2]} {outermost[3]}" if outermost else "no list of blocks ran"
    raise TiltmeterError(
        f"{name} has no residual stream of the form [batch, position, width] that a list of blocks hands on "
        f"({reason}); it cannot be split, choose another model."
    )


def _refuse_several(name: str, streams: list[str]) -> None:
    """Refuse a model with several residual streams, neither inside the other: a site would not say in which it is.

    Raises:
        TiltmeterError: it has several.
    """
    outer = [path for path in streams if not any(path.startswith(f"{other}.") for other in streams)]
    if len(outer) > 1:
        raise TiltmeterError(
            f"{name} has several residual streams ({', '.join(outer)}), and no site says which is meant; choose a "
            "model with one."
        )


def _broken_chain(runs: list[list[Call]]) -> str | None:
    """Why these modules do not hand one stream on; None if they do."""
    if any(len(run) > 1 for run in runs):
        return "a block runs more than once in a pass"
    chain = [run[0] for run in runs]
    for call in chain:
        if call.entered is None or call.left is None or call.entered.shape != call.left.shape:
            return f"block {_index(call)} returns shape {call.shape}"
        if call.left.shape[:2] != (ROWS, POSITIONS):
            return f"block {_index(call)} returns shape {call.shape} for token ids of shape {(ROWS, POSITIONS)}"
    for one, other in pairwise(chain):
        if one.left is None or not same(other.entered, one.left):
            return f"what leaves block {_index(one)} is not what enters block {_index(other)}"
    return None


def _index(block: Call) -> str:
    return block.name.rpartition(".")[2]


def _trunk(model: nn.Module, path: str, calls: Mapping[str, list[Call]]) -> Call:
    """The innermost module around the blocks that takes token ids and returns hidden states."""
    while "." in path:
        path = path.rpartition(".")[0]
        call = calls[path][-1] if path in calls else None
        if call and call.is_trunk and "input_ids" in signature(type(call.module).forward).parameters:
            return call
    raise TiltmeterError(f"{type(model).__name__} has no trunk below a language-model head; load a causal LM.")


def _reader(trunk: Call, blocks: str, last: Call, calls: Mapping[str, list[Call]]) -> nn.Module | None:
    """The first module of the trunk that reads what the last block wrote."""
    after = [
        run[0]
        for path, run in calls.items()
        if path.startswith(f"{trunk.name}.") and not path.startswith(f"{blocks}.") and len(run) == 1
    ]
    written = last.left
    for call in sorted(after, key=lambda one: one.order):
        around = blocks.startswith(f"{call.name}.")
        writes = call.left is not None and call.extras is None
        if call.order > last.order and not around and writes and written is not None and same(call.entered, written):
            return call.module
    return None
