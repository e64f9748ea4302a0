"""Compile elementwise functions and reductions into one pass over memory.

Written as torch operations, a kernel reads and writes memory once per operation. `torch.compile` fuses them into a
single pass (C++ on a CPU, Triton on a GPU). That costs a second or two per kernel, so small tensors run uncompiled; so
does everything where there is no compiler.

Compiled code decides the last digits of a result: a different loop order sums in a different order. Results must not
depend on which sizes a process happened to meet first, so the compiler is told as little about sizes as possible
(`_with_dynamic_sizes`).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache, wraps
from inspect import unwrap
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.decorators import mark_static, mark_unbacked
from torch.utils._pytree import tree_map_only

MIN_COMPILED_SIZE = 2**18
"""Elements of the largest argument from which a kernel is compiled: ten calls of this size repay the compile time."""

MAX_VARIANTS = 64
"""Compiled variants of one kernel: one per combination of types, numbers of axes and memory layouts."""

FUSE_ALL = ("realize_opcount_threshold", "realize_reads_threshold", "realize_acc_reads_threshold")
"""Inductor's limits on fusion; raised so that a kernel never writes an intermediate result to memory."""

FEW, MANY = 3, 1024
"""Sizes that the compiler assumes when it must choose loops: of any axis but the last, and of the last."""

MANY_ROWS = 64
"""The same for any axis but the last on a GPU. With a smaller hint Triton splits sums to keep all of the GPU busy."""

_log = logging.getLogger(__name__)


@cache
def has_compiler() -> bool:
    """Whether there is a C++ compiler. Triton needs one too, for the code that launches kernels."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a kernel: compile it for large arguments, run it as it is for small ones."""
    copies: dict[LongAxes, Callable[..., Any]] = {}
    empty: dict[Any, Any] = {}

    @wraps(function)
    def call(*arguments: Any) -> Any:
        sizes = [one.numel() for one in arguments if isinstance(one, Tensor)]
        if not min(sizes):
            return _empty_result(function, arguments, empty)
        if max(sizes) < MIN_COMPILED_SIZE or not has_compiler():
            return function(*arguments)
        axes = _long_axes(arguments)
        if axes not in copies:
            copies[axes] = _compiled_copy(function)
        try:
            return copies[axes](*map(_with_dynamic_sizes, arguments))
        except Exception as error:  # whatever is wrong with the compiler: uncompiled code computes the same function
            _log.warning("warning: %s is not compiled (%s), and slower.", function.__name__, type(error).__name__)
            copies[axes] = function
            return function(*arguments)

    return call


LongAxes = tuple[tuple[bool, ...], ...]
"""For each tensor, which of its axes are longer than one."""


def _long_axes(arguments: Sequence[Any]) -> LongAxes:
    """The one fact about sizes that selects a compiled variant: a parallel loop over an axis of one uses one core."""
    return tuple(tuple(size != 1 for size in one.shape) for one in arguments if isinstance(one, Tensor))


def _compiled_copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a copy of the function, because dynamo shares what it learns about sizes between calls of one function.

    Without the copy, the sizes that were compiled first would influence the code for later ones.
    """
    torch._dynamo.config.specialize_float = True  # scalars such as eps are compiled in as constants
    torch._dynamo.config.recompile_limit = max(MAX_VARIANTS, torch._dynamo.config.recompile_limit)
    plain = unwrap(function)  # without the runtime shape checks of the tests
    copy = FunctionType(plain.__code__.replace(), plain.__globals__, plain.__name__)
    return torch.compile(copy, dynamic=True, options=dict.fromkeys(FUSE_ALL, 10**6))


def _with_dynamic_sizes(argument: Any) -> Any:
    """Hide a tensor's sizes from the compiler, which then knows only which sizes are equal to each other.

    Kernels broadcast as NumPy does, so axes with the same index from the end have the same size (`shape_id`).
    """
    if not isinstance(argument, Tensor):
        return argument
    alias = argument.detach()  # marks stay on the alias; the caller's tensor is not touched
    on_gpu = argument.device.type != "cpu"
    for axis, size in enumerate(alias.shape, start=-alias.ndim):
        if size == 1:
            continue
        if on_gpu and axis == -1:
            # Triton sums along an axis of known length in registers, which halves a sweep's time. The code, and so the
            # last digits, then depend on that length, but on no other.
            mark_static(alias, alias.ndim - 1)
        else:
            hint = MANY if axis == -1 else MANY_ROWS if on_gpu else FEW
            mark_unbacked(alias, axis + alias.ndim, hint, shape_id=str(axis))
    return alias


def _empty_result(function: Callable[..., Any], arguments: Sequence[Any], known: dict[Any, Any]) -> Any:
    """Return empty tensors of the right shape where an argument is empty (a clean run has no points).

    Shapes are inferred on the meta device, once per combination of argument shapes.
    """
    key = tuple((one.shape, one.dtype) if isinstance(one, Tensor) else one for one in arguments)
    if key not in known:
        known[key] = function(*tree_map_only(Tensor, lambda one: one.to("meta"), list(arguments)))
    device = next(one.device for one in arguments if isinstance(one, Tensor))
    return tree_map_only(Tensor, lambda one: torch.empty_like(one, device=device), known[key])
