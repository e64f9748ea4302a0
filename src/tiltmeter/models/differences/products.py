"""Products of differences with matrices: where nearly all the time goes.

On a processor a model's matrices are packed for oneDNN once, which is up to two times as fast as torch's own way. The
difference may be rounded to bfloat16 first (`operands`): it is small itself, so that the error is relative to the
difference and not to the activation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_OPERANDS: ContextVar[torch.dtype | None] = ContextVar("operand_precision", default=None)

ROWS = 1024
"""The number of rows that matrices are packed for; others work, too."""

_prepared: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Matrices as products take them, by the model's own."""


@contextmanager
def operand_precision(dtype: torch.dtype | None) -> Iterator[None]:
    """Round what enters a product to this type; None leaves it as it is."""
    token = _OPERANDS.set(dtype)
    try:
        yield
    finally:
        _OPERANDS.reset(token)


def operand_dtype(dtype: torch.dtype) -> torch.dtype:
    """What differences from values of this type are when they enter a product."""
    return _OPERANDS.get() or dtype


def round_operand(d: Tensor) -> Tensor:
    """A difference as it enters a product."""
    return d.to(operand_dtype(d.dtype))


def product(d: Float[Tensor, "*row inputs"], weight: Tensor, transposed: bool = False) -> Float[Tensor, "*row outputs"]:
    """The product d Wᵀ, in the type of `operands`. W is [outputs, inputs], or `turned` [inputs, outputs]."""
    d = round_operand(d)
    if not d.numel():
        return d.new_empty(*d.shape[:-1], weight.shape[1 if transposed else 0])
    if _packs(d.device, d.dtype):
        flat = d.reshape(-1, d.shape[-1])
        packed = _prepare(weight, transposed, d.dtype)
        return torch.ops.mkldnn._linear_pointwise(flat, packed, None, "none", [], "").view(*d.shape[:-1], -1)
    if weight.dtype != d.dtype:
        weight = _prepare(weight, transposed, d.dtype)
    return torch.matmul(d, weight if transposed else weight.t())


def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype != torch.float64 and torch.backends.mkldnn.is_available()


def _prepare(weight: Tensor, transposed: bool, dtype: torch.dtype) -> Tensor:
    """Rounded, and on a processor packed. Kept for as long as the model keeps its own, and that stays as it is."""
    known = _prepared.setdefault(weight, {})
    key = (weight._version, transposed, dtype)
    if key not in known:
        own = weight.detach().to(dtype)
        if _packs(weight.device, dtype):
            own = torch.ops.mkldnn._reorder_linear_weight((own.t() if transposed else own).contiguous(), ROWS)
        known.clear()
        known[key] = own
    return known[key]


def batched(a: Float[Tensor, "*#batch n inner"], b: Float[Tensor, "*#batch inner m"]) -> Float[Tensor, "*#batch n m"]:
    """Products of many small matrices, rounded as `operands` says; the result is of float32 or more.

    Processors have no fast way to many small products in bfloat16, but one that takes float32 and rounds within.
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    if 1 in (a.shape[-1], a.shape[-2] * b.shape[-1]):  # numbers alone, of which libraries take one at a time
        return _of_numbers(a.to(dtype), b.to(dtype))
    if a.device.type != "cpu":
        return torch.matmul(a.to(operand_dtype(dtype)), b.to(operand_dtype(dtype))).to(dtype)
    with _rounding_within(operand_dtype(dtype)):
        return torch.matmul(a.to(dtype), b.to(dtype))


def _of_numbers(a: Tensor, b: Tensor) -> Tensor:
    """The product where a sum, or the result, is a single number; rounds nothing."""
    return a * b if a.shape[-1] == 1 else torch.linalg.vecdot(a, b.transpose(-2, -1))[..., None]


@contextmanager
def _rounding_within(dtype: torch.dtype) -> Iterator[None]:
    """Let oneDNN round float32 to bfloat16 in products of matrices; everywhere else it does not."""
    matrices: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matrices.fp32_precision
    try:
        if dtype == torch.bfloat16:
            matrices.fp32_precision = "bf16"
        yield
    finally:
        matrices.fp32_precision = before


def shared(
    a: Float[Tensor, "*batch n inner"], b: Float[Tensor, "point *batch inner m"]
) -> Float[Tensor, "point *batch n m"]:
    """The same with a left matrix that all points share: they stand side by side, so that it is not copied."""
    points, columns = b.shape[0], b.shape[-1]
    beside = b.movedim(0, -2).flatten(-2)
    return batched(a, beside).unflatten(-1, (points, columns)).movedim(-2, 0)


def shared_right(
    a: Float[Tensor, "point *batch n inner"], b: Float[Tensor, "*batch inner m"]
) -> Float[Tensor, "point *batch n m"]:
    """The same with a right matrix that all points share: they stand below each other."""
    points, rows = a.shape[0], a.shape[-2]
    below = a.movedim(0, -3).flatten(-3, -2)
    return batched(below, b).unflatten(-2, (points, rows)).movedim(-3, 0).contiguous()
