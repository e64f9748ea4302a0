"""Context managers that read or change one forward pass: hooks that assert that they fired, and skipped blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

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


class Part(Protocol):
    """A part of what enters or leaves a module, such as one head's."""

    def read(self, whole: Tensor, entered: Tensor) -> Tensor:
        """The part of `whole`; `entered` is what entered the module."""

    def put(self, whole: Tensor, entered: Tensor, new: Tensor) -> Tensor:
        """`whole` with `new` as this part."""


class Place(NamedTuple):
    """Where an activation is read or put: at a module's input or output."""

    module: nn.Module
    side: Literal["input", "output"]
    part: Part | None = None
    """None for all of it."""


@contextmanager
def captured(place: Place) -> Iterator[list[Tensor]]:
    """Collect the activation at a place; its module must run exactly once.

    Copies are kept: some families add to these tensors in place afterwards.
    """
    seen: list[Tensor] = []

    def read(whole: Tensor, entered: Tensor) -> None:
        seen.append(whole.clone() if place.part is None else place.part.read(whole, entered))

    def enter(_: nn.Module, args: tuple, kwargs: dict) -> None:
        read(head := input_head(args, kwargs), head)

    def leave(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        head = output_head(output)
        read(head, head if place.part is None else input_head(args, kwargs))

    with _hooked(place, enter, leave):
        yield seen
    assert len(seen) == 1, f"{_name(place)} ran {len(seen)} times while its {place.side} was to be read once"


@contextmanager
def replaced(place: Place, new: Tensor) -> Iterator[None]:
    """Replace the activation at a place; its module must run exactly once.

    The model gets a copy of `new`, because it may add to it in place.
    """
    fired: list[None] = []

    def put(whole: Tensor, entered: Tensor) -> Tensor:
        fired.append(None)
        return new.clone() if place.part is None else place.part.put(whole, entered, new)

    def enter(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        head, slot = input_head(args, kwargs), input_slot(args, kwargs)
        if isinstance(slot, int):
            return (*args[:slot], put(head, head), *args[slot + 1 :]), kwargs
        return args, {**kwargs, slot: put(head, head)}

    def leave(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        head = output_head(output)
        entered = head if place.part is None else input_head(args, kwargs)
        return _with_head(output, put(head, entered))

    with _hooked(place, enter, leave):
        yield
    assert len(fired) == 1, f"{_name(place)} ran {len(fired)} times while its {place.side} was to be replaced once"


@contextmanager
def _hooked(place: Place, enter: Callable[..., Any], leave: Callable[..., Any]) -> Iterator[None]:
    """Call `enter` before the module of a place runs, or `leave` after it, by the side that is meant."""
    if place.side == "input":
        handle = place.module.register_forward_pre_hook(enter, with_kwargs=True)
    else:
        handle = place.module.register_forward_hook(leave, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _name(place: Place) -> str:
    return type(place.module).__name__


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


def same(one: Tensor | None, other: Tensor) -> bool:
    """Whether an activation of a trace is the same as another."""
    return one is not None and one.shape == other.shape and torch.allclose(one, other, 0, 0, equal_nan=True)


def is_matrix(call: Call) -> bool:
    """Whether the module of a call is a matrix product on activations."""
    weight = getattr(call.module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and call.entered is not None and call.left is not None
