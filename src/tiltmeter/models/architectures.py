"""Find the parts of a Hugging Face decoder by what they do in one small forward pass.

Decoder families differ in the names of their modules, in what their blocks return, and in where the outputs of
attention and MLP are normalised. A trace of a few tokens shows all of that, so no family is listed here:

- the blocks are the longest list of modules that hand the residual stream from one to the next;
- the trunk is the innermost module around them that returns hidden states;
- the final norm is the module that reads what the last block wrote;
- the attention and MLP of a block are the two modules whose outputs add up to what the block adds to the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import pairwise

import torch
from torch import Tensor, nn

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.failures import explained
from tiltmeter.models.hooks import Call, traced
from tiltmeter.models.sites import Site

ROWS, POSITIONS = 2, 8
"""Size of the token batch that is traced."""


@dataclass(frozen=True)
class BlockParts:
    """The modules inside one block; None where the block has no such part."""

    attention: nn.Module | None
    """Its output is what attention adds to the stream."""
    mlp: nn.Module | None
    projection: nn.Module | None
    """Its input is the heads' outputs, side by side."""
    reader: nn.Module | None
    """Its input is the stream after attention and before the MLP; None where the two are parallel."""

    down: nn.Module | None
    """The MLP's last matrix, whose output is the MLP's own."""

    def of(self, kind: str) -> nn.Module | None:
        """The module at which a kind of site is hooked."""
        return {
            "attn_out": self.attention,
            "mlp_out": self.mlp,
            "z": self.projection,
            "resid_mid": self.reader,
            "mlp_post": self.down,
        }[kind]


NO_PARTS = BlockParts(None, None, None, None, None)


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

    def inside(self, layer: int) -> BlockParts:
        """The attention, the MLP and what else is hooked in a block."""
        if layer not in self.known:
            ran = layer in self.running
            self.known[layer] = _block_parts(self.model, self.blocks[layer]) if ran else NO_PARTS
        return self.known[layer]

    def component(self, site: Site) -> nn.Module:
        """The module whose output is `hook_attn_out` or `hook_mlp_out`, or whose input is one of the others.

        Where a family normalises the outputs of attention and MLP, the site is after that norm, as in TransformerLens.

        Raises:
            TiltmeterError: the block has no such part.
        """
        found = self.inside(site.layer).of(site.kind)
        if found is not None:
            return found
        if site.layer not in self.running:
            reason = f"block {site.layer} does not run on text"
        elif site.kind == "z":
            reason = "no output projection of an attention was found in this block"
        elif site.kind == "mlp_post":
            reason = "no matrix was found whose output is that of this block's MLP"
        elif site.kind == "resid_mid":
            reason = "no module of this block reads the stream between attention and MLP: they may be parallel"
        else:
            reason = "the outputs of attention and MLP are not what is added to the stream"
        raise TiltmeterError(
            f"In {type(self.model).__name__} {reason}, so {site.name} cannot be measured; use hook_resid_pre or "
            "hook_resid_post."
        )


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


def probe_tokens(model: nn.Module, rows: int = ROWS, positions: int = POSITIONS) -> Tensor:
    """Different token ids [row, position] from the middle of the vocabulary, none of which the configuration names."""
    config = model.config
    size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    special = {
        value
        for one in (config, config.get_text_config())  # type: ignore[union-attr,operator]
        for key, value in vars(one).items()
        if key.endswith(("_token_id", "_token_index")) and isinstance(value, int)
    }
    ordinary = [token for token in range(min(size, size // 3 + 4 * rows * positions)) if token not in special]
    found = [ordinary[-1 - index % len(ordinary)] for index in range(rows * positions)]
    return torch.tensor(found).reshape(rows, positions)


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


def same(one: Tensor | None, other: Tensor) -> bool:
    """Whether an activation of a trace is the same as another."""
    return one is not None and one.shape == other.shape and torch.allclose(one, other, 0, 0, equal_nan=True)


def _block_parts(model: nn.Module, block: nn.Module) -> BlockParts:
    """Find the insides of a block by a trace of what its modules write."""
    tokens = probe_tokens(model).to(model.device)  # type: ignore[arg-type]
    modules = dict(block.named_modules())
    with explained(model, "running it on a few tokens"), traced(modules) as calls:
        model(input_ids=tokens, use_cache=False)
    whole = next(call for call in calls if call.name == "")
    counts = {name: sum(call.name == name for call in calls) for name in modules}
    once = [call for call in calls if call.name and counts[call.name] == 1]
    attention, mlp = _writers(whole, once)
    return BlockParts(
        attention=attention.module if attention else None,
        mlp=mlp.module if mlp else None,
        projection=_projection([one for one in once if _is_attention(one.name)], attention),
        down=mlp.module if mlp and _is_matrix(mlp) else _projection([one for one in once if is_mlp(one.name)], mlp),
        reader=_middle_reader(whole, once, attention, mlp),
    )


def _middle_reader(whole: Call, calls: list[Call], attention: Call | None, mlp: Call | None) -> nn.Module | None:
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
    return min(found, key=lambda call: call.name.count(".")).module if found else None


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


def _projection(calls: list[Call], writer: Call | None) -> nn.Module | None:
    """The last matrix in an attention or an MLP, whose output is the owner's own."""
    owners = [call for call in calls if not is_norm(call.name)]
    for owner in sorted(owners, key=lambda call: call.name.count(".")):
        targets = [one.left for one in (owner, writer) if one is not None and one.left is not None]
        inside = [call for call in calls if call.name.startswith(f"{owner.name}.") and _is_matrix(call)]
        for call in reversed(inside):
            if any(same(call.left, target) for target in targets):
                return call.module
    return None


def _is_matrix(call: Call) -> bool:
    weight = getattr(call.module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and call.entered is not None and call.left is not None


def _is_attention(name: str) -> bool:
    return "att" in name.lower()


def is_norm(name: str) -> bool:
    """Whether a module's path names a norm."""
    own = name.lower().rpartition(".")[2]
    return any(word in own for word in ("norm", "ln_", "dropout"))


def is_mlp(name: str) -> bool:
    """Whether a module's path names an MLP."""
    return any(word in name.lower() for word in ("mlp", "ffn", "feed", "moe", "ff"))
