"""Context managers that read or change one forward pass: hooks that assert that they fired, and skipped blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def output_head(value: Any) -> Any:
    """The activation in a module's output: the tensor itself, or the first element of what holds it."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return value[0] if isinstance(value, (tuple, list)) and value else value


def _with_head(value: Any, new: Tensor) -> Any:
    return type(value)((new, *value[1:])) if type(value) in (tuple, list) else new


def input_slot(args: tuple, kwargs: Mapping[str, Any]) -> int | str:
    """Where the activation is among a module's arguments: the first tensor by position, else by name.

    Raises:
        TypeError: no argument is a tensor.
    """
    for index, value in enumerate(args):
        if isinstance(value, Tensor):
            return index
    for name in ("hidden_states", *kwargs):
        if isinstance(kwargs.get(name), Tensor):
            return name
    raise TypeError("no argument of the module is a tensor")


def input_head(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """The activation among a module's arguments."""
    slot = input_slot(args, kwargs)
    return args[slot] if isinstance(slot, int) else kwargs[slot]


class Rankings(TorchFunctionMode):
    """Within the block, collects among how many numbers the largest are looked for."""

    AXIS: Mapping[Any, int] = {
        **dict.fromkeys((torch.topk, Tensor.topk, torch.kthvalue, Tensor.kthvalue), 2),
        **dict.fromkeys((torch.sort, Tensor.sort, torch.argsort, Tensor.argsort), 1),
    }
    """The place of the axis among the arguments of each function that ranks numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the size of the axis."""
        kwargs = kwargs or {}
        if func in self.AXIS:
            x = args[0] if args else kwargs["input"]
            axis = kwargs.get("dim", args[self.AXIS[func]] if len(args) > self.AXIS[func] else -1)
            self.sizes.add(x.shape[axis])
        return func(*args, **kwargs)


@contextmanager
def captured(module: nn.Module, side: str) -> Iterator[list[Tensor]]:
    """Collect the activation at the `"input"` or `"output"` of a module; it must run exactly once.

    Copies are kept: some families add to these tensors in place afterwards.
    """
    seen: list[Tensor] = []
    if side == "input":
        handle = module.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(input_head(args, kwargs).clone()), with_kwargs=True
        )
    else:
        handle = module.register_forward_hook(lambda _, __, output: seen.append(output_head(output).clone()))
    try:
        yield seen
    finally:
        handle.remove()
    assert len(seen) == 1, f"{type(module).__name__} ran {len(seen)} times while its {side} was to be read once"


@contextmanager
def replaced(module: nn.Module, side: str, new: Tensor) -> Iterator[None]:
    """Replace the activation at the `"input"` or `"output"` of a module; it must run exactly once.

    The model gets a copy of `new`, because it may add to it in place.
    """
    hook = _Replacement(new)
    if side == "input":
        handle = module.register_forward_pre_hook(hook.on_input, with_kwargs=True)
    else:
        handle = module.register_forward_hook(hook.on_output)
    try:
        yield
    finally:
        handle.remove()
    ran = f"{type(module).__name__} ran {hook.fired} times while its {side} was to be replaced once"
    assert hook.fired == 1, ran


class _Replacement:
    """Puts copies of an activation in the place of a module's input or output, and counts how often."""

    def __init__(self, new: Tensor) -> None:
        self.new = new
        self.fired = 0

    def on_input(self, _: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.fired += 1
        slot = input_slot(args, kwargs)
        if isinstance(slot, int):
            return (*args[:slot], self.new.clone(), *args[slot + 1 :]), kwargs
        return args, {**kwargs, slot: self.new.clone()}

    def on_output(self, _: nn.Module, __: tuple, output: Any) -> Any:
        self.fired += 1
        return _with_head(output, self.new.clone())


@contextmanager
def skipped(blocks: nn.ModuleList, which: range, extras: Mapping[int, tuple | None]) -> Iterator[None]:
    """Replace some blocks by the identity. The list keeps its length, because models look up masks by block index.

    `extras` holds for each block what it returns after the stream; None where it returns the stream alone.
    """
    originals = {index: blocks[index] for index in which}
    try:
        for index in which:
            blocks[index] = _Skipped(originals[index], extras[index])
        yield
    finally:
        for index, block in originals.items():
            blocks[index] = block


class _Skipped(nn.Module):
    """Returns the stream as it came, in the structure in which the block returns it; looks like the block otherwise."""

    def __init__(self, block: nn.Module, extras: tuple | None) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule: its hooks and weights are not this module's
        self.__dict__["extras"] = extras

    def __getattr__(self, name: str) -> Any:
        """Models ask blocks for their kind of attention, and the like."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        stream = input_head(args, kwargs)
        extras = self.__dict__["extras"]
        return stream if extras is None else (stream, *extras)


class Call:
    """One call of a module during a trace: the activations [batch, position, width] that went in and came out."""

    def __init__(self, name: str, module: nn.Module, entered: Tensor | None, left: Tensor | None, output: Any) -> None:
        self.name, self.module, self.entered, self.left = name, module, entered, left
        self.order = 0
        self.extras = (None,) * (len(output) - 1) if isinstance(output, (tuple, list)) else None
        self.is_trunk = hasattr(output, "last_hidden_state")
        self.shape = tuple(head.shape) if isinstance(head := output_head(output), Tensor) else None


@contextmanager
def traced(modules: Mapping[str, nn.Module]) -> Iterator[list[Call]]:
    """Record every call of these modules, in the order in which they return."""
    trace = _Trace()
    handles: list[Any] = []
    for name, module in modules.items():
        handles.append(module.register_forward_pre_hook(trace.enter, with_kwargs=True))
        handles.append(module.register_forward_hook(partial(trace.leave, name)))
    try:
        with torch.no_grad():
            yield trace.calls
    finally:
        for handle in handles:
            handle.remove()


class _Trace:
    """Collects calls: what enters is kept until the module returns."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.entered: dict[nn.Module, list[Tensor | None]] = {}

    def enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        try:
            found = _copy(input_head(args, kwargs))
        except TypeError:
            found = None
        self.entered.setdefault(module, []).append(found)

    def leave(self, name: str, module: nn.Module, _: tuple, output: Any) -> None:
        call = Call(name, module, self.entered[module].pop(), _copy(output_head(output)), output)
        call.order = len(self.calls)
        self.calls.append(call)


def _copy(value: Any) -> Tensor | None:
    return value.detach().clone() if isinstance(value, Tensor) and value.ndim == 3 else None
