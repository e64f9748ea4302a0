"""Hooks as context managers that assert that they fired."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def _head(value: Any) -> Tensor:
    """The activation in a module's output: the tensor itself, or the first of a tuple."""
    return value[0] if isinstance(value, tuple) else value


def _with_head(value: Any, new: Tensor) -> Any:
    return (new, *value[1:]) if isinstance(value, tuple) else new


@contextmanager
def captured(module: nn.Module, side: str) -> Iterator[list[Tensor]]:
    """Collect the activation that passes the `"input"` or `"output"` side of a module."""
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
    """Put `new` in the place of the activation that passes the `"input"` or `"output"` side of a module."""
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
