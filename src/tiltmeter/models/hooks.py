"""Context managers that read or change one forward pass: hooks that assert that they fired, and skipped blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def _head(value: Any) -> Tensor:
    """The activation in a module's output: the tensor itself, or the first element of a tuple."""
    return value[0] if isinstance(value, tuple) else value


def _with_head(value: Any, new: Tensor) -> Any:
    return (new, *value[1:]) if isinstance(value, tuple) else new


@contextmanager
def captured(module: nn.Module, side: str) -> Iterator[list[Tensor]]:
    """Collect the activation at the `"input"` or `"output"` of a module; it must run exactly once."""
    seen: list[Tensor] = []
    if side == "input":
        handle = module.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    else:
        handle = module.register_forward_hook(lambda _, __, output: seen.append(_head(output)))
    try:
        yield seen
    finally:
        handle.remove()
    assert len(seen) == 1, f"{type(module).__name__} ran {len(seen)} times while its {side} was to be read once"


@contextmanager
def replaced(module: nn.Module, side: str, new: Tensor) -> Iterator[None]:
    """Replace the activation at the `"input"` or `"output"` of a module; it must run exactly once."""
    fired = []

    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        fired.append(True)
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def on_output(_: nn.Module, __: tuple, output: Any) -> Any:
        fired.append(True)
        return _with_head(output, new)

    if side == "input":
        handle = module.register_forward_pre_hook(on_input, with_kwargs=True)
    else:
        handle = module.register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()
    assert len(fired) == 1, f"{type(module).__name__} ran {len(fired)} times while its {side} was to be replaced once"


@contextmanager
def skipped(blocks: nn.ModuleList, which: range) -> Iterator[None]:
    """Replace some blocks by the identity. The list keeps its length, because models look up masks by block index."""
    originals = {index: blocks[index] for index in which}
    try:
        for index in which:
            blocks[index] = _Identity()
        yield
    finally:
        for index, block in originals.items():
            blocks[index] = block


class _Identity(nn.Module):
    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states
