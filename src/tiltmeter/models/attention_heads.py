"""Where an attention computes queries, keys and values, and which columns belong to which head.

Families compute the three by three matrices or by one, and lay out that one's columns in several ways. A layout is
believed if the columns do what queries, keys and values do, when the block runs alone on a few tokens:

- without values, no head has an output;
- other keys at one position change the outputs at later positions, and at no earlier one;
- other queries at one position change the outputs at this position alone.

A head's columns are believed if they act on the outputs of no other head.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.hooks import Call, Place, captured, is_matrix, replaced
from tiltmeter.models.parts_of_outputs import Columns, HeadResult

WORDS: Mapping[str, frozenset[str]] = {
    "q": frozenset({"q", "wq", "query", "queries"}),
    "k": frozenset({"k", "wk", "key", "keys"}),
    "v": frozenset({"v", "wv", "value", "values"}),
}
"""By which words in its name a matrix is known."""

AT = 3
"""The position at which queries and keys are changed."""

UNMOVED = 1e-4
"""The largest change of outputs, relative to the largest of them, that counts as none."""


@dataclass(frozen=True)
class BlockAlone:
    """One block and the arguments of its call in a pass of a few tokens, by which it is run again alone."""

    block: nn.Module
    args: tuple
    kwargs: Mapping[str, Any]

    def values(self, wanted: Iterable[Place], instead: Mapping[Place, Tensor] | None = None) -> dict[Place, Tensor]:
        """The activations at these places, with others replaced."""
        with torch.no_grad(), ExitStack() as stack:
            for place, new in (instead or {}).items():
                stack.enter_context(replaced(place, new))
            found = {place: stack.enter_context(captured(place)) for place in wanted}
            self.block(*map(fresh, self.args), **{name: fresh(value) for name, value in self.kwargs.items()})
        return {place: values[0] for place, values in found.items()}


@contextmanager
def recorded(block: nn.Module) -> Iterator[list[BlockAlone]]:
    """Collect the calls of a block, with copies of their arguments."""
    seen: list[BlockAlone] = []

    def enter(_: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append(BlockAlone(block, tuple(map(fresh, args)), {name: fresh(value) for name, value in kwargs.items()}))

    handle = block.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@dataclass(frozen=True)
class AttentionHeads:
    """The columns of one attention's queries `q`, keys `k`, values `v`, and of the heads' outputs `z`, side by side."""

    places: Mapping[str, Place]
    heads: Mapping[str, int]
    """How many of each there are."""
    size: int
    """How many columns one head has."""
    alone: BlockAlone

    def place(self, kind: str, head: int | None) -> Place:
        """Where one head's, or all heads', are read and put; of kind `result`, what one head adds to the stream.

        Raises:
            TiltmeterError: there is no such head, or its columns act on others.
        """
        if head is None:
            return self.places[kind]
        of = "z" if kind == "result" else kind
        if head >= self.heads[of]:
            raise TiltmeterError(f"this block has {self.heads[of]} of {kind}, counted from 0")
        if not self._acts_alone(of, head):
            raise TiltmeterError(f"the columns of head {head} of {kind} act on other heads as well")
        columns, whole = self._columns(range(head, head + 1)), self.places[of]
        if kind == "result":
            return Place(whole.module, "output", HeadResult(whole.module, columns))
        inner = whole.part.which[columns] if isinstance(whole.part, Columns) else columns
        return Place(whole.module, whole.side, Columns(inner))

    def act_as_named(self) -> bool:
        """Whether these columns do what queries, keys and values do."""
        clean = self.alone.values(self.places.values())
        q, k, v, z = (clean[self.places[kind]] for kind in "qkvz")
        if any(x.shape[-1] != self.heads[kind] * self.size for kind, x in zip("qkvz", (q, k, v, z), strict=True)):
            return False
        without, asked = self._outputs("v", torch.zeros_like(v)), self._outputs("q", _other(q))
        keyed = self._outputs("k", _other(k))
        return (
            _same(without, torch.zeros_like(z), z)
            and _same(asked[:, :AT], z[:, :AT], z)
            and _same(asked[:, AT + 1 :], z[:, AT + 1 :], z)
            and not _same(asked[:, AT], z[:, AT], z)
            and _same(keyed[:, :AT], z[:, :AT], z)
            and not _same(keyed[:, AT + 1 :], z[:, AT + 1 :], z)
        )

    def _acts_alone(self, kind: str, head: int) -> bool:
        """Whether the columns of one head act on the outputs of this head, or of those that share it, alone."""
        shared = self.heads["z"] // self.heads["v"]
        of, own = ("v", head // shared) if kind == "z" else (kind, head)
        clean = self.alone.values([self.places[of], self.places["z"]])
        x, z = clean[self.places[of]], clean[self.places["z"]]
        columns = self._columns(range(own, own + 1))
        changed = torch.zeros_like(x) if of == "v" else _other(x)
        found = self._outputs(of, x.index_copy(-1, columns, changed[..., columns]))
        reached = range(own, own + 1) if of == "q" else range(own * shared, (own + 1) * shared)
        mine = self._columns(reached)
        others = self._columns(sorted({*range(self.heads["z"])} - {*reached}))
        expected = torch.zeros_like(z[..., mine]) if of == "v" else found[..., mine]
        return (
            _same(found[..., others], z[..., others], z)
            and not _same(found[..., mine], z[..., mine], z)
            and _same(found[..., mine], expected, z)
        )

    def _outputs(self, kind: str, new: Tensor) -> Tensor:
        z = self.places["z"]
        return self.alone.values([z], {self.places[kind]: new})[z]

    def _columns(self, heads: Iterable[int]) -> Tensor:
        device = next(self.places["z"].module.parameters()).device
        return torch.tensor([head * self.size + i for head in heads for i in range(self.size)], device=device).long()


def find_heads(alone: BlockAlone, calls: list[Call], last: Call, n_heads: Any) -> AttentionHeads | None:
    """Find the queries, keys and values of an attention.

    Args:
        alone: the block.
        calls: of the modules in it, in a pass of a few tokens.
        last: of these, that of the attention's last matrix.
        n_heads: what the configuration states as the number of heads.

    Returns:
        None if no layout acts as it should.
    """
    if last.entered is None or not isinstance(n_heads, int) or last.entered.shape[-1] % n_heads:
        return None
    size = last.entered.shape[-1] // n_heads
    for places, shared in _candidates(calls, last, n_heads, size):
        heads = {"q": n_heads, "k": n_heads // shared, "v": n_heads // shared, "z": n_heads}
        found = AttentionHeads({**places, "z": Place(last.module, "input")}, heads, size, alone)
        if found.act_as_named():
            return found
    return None


def _candidates(calls: list[Call], last: Call, n_heads: int, size: int) -> Iterator[tuple[dict[str, Place], int]]:
    """Where the three may be, and how many heads share keys and values."""
    before = [call for call in calls if call.order < last.order and is_matrix(call)]
    named = {kind: [call for call in before if _words(call) & words] for kind, words in WORDS.items()}
    if all(len(found) == 1 for found in named.values()) and len({found[0].module for found in named.values()}) == 3:
        kept = _width(named["v"][0]) // size
        if kept and n_heads % kept == 0:
            yield {kind: Place(found[0].module, "output") for kind, found in named.items()}, n_heads // kept
    for call in before:
        kept, rest = divmod(_width(call) - n_heads * size, 2 * size)
        if kept > 0 and not rest and n_heads % kept == 0:
            for which in _layouts(n_heads // kept, kept, size, call.module):
                yield {kind: Place(call.module, "output", Columns(which[kind])) for kind in WORDS}, n_heads // kept


def _layouts(shared: int, kept: int, size: int, module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The columns of the three in one matrix: one after the other, or by group of heads that share keys and values."""
    columns = torch.arange((shared + 2) * kept * size, device=next(module.parameters()).device)
    yield dict(zip("qkv", columns.split([shared * kept * size, kept * size, kept * size]), strict=True))
    groups = columns.reshape(kept, shared + 2, size)
    parts = (groups[:, :shared], groups[:, shared], groups[:, shared + 1])
    yield {kind: part.flatten() for kind, part in zip("qkv", parts, strict=True)}


def _width(call: Call) -> int:
    assert call.left is not None
    return call.left.shape[-1]


def _words(call: Call) -> set[str]:
    return set(re.split(r"[^a-z]+", call.name.lower().rpartition(".")[2]))


def _other(x: Tensor) -> Tensor:
    """Other queries or keys at one position: far from these, so that attention moves where it is nearly uniform."""
    changed = x.clone()
    changed[:, AT] = 10 * x[:, AT].roll(1, -1) - 5 * x[:, AT].flip(-1)
    return changed


def _same(found: Tensor, expected: Tensor, scale: Tensor) -> bool:
    """Whether outputs are equal, up to rounding."""
    if not found.numel():
        return True
    allowed = max(UNMOVED, 4 * torch.finfo(scale.dtype).eps)
    return float((found - expected).abs().max()) <= allowed * float(scale.abs().max())


def fresh(value: Any) -> Any:
    """A copy of a tensor, since blocks add to their arguments in place; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) else value
