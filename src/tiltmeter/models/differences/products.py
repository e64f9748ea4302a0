"""Matrix products with differences, where nearly all of the time goes.

On a CPU the model's matrices are packed for oneDNN once, which makes products up to two times as fast as torch's
default. Differences may be rounded to bfloat16 first (`operand_precision`): the error is then relative to the
difference and not to the much larger activation.
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
"""The number of rows that the packing is optimised for; others work as well."""

_prepared: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Rounded and packed weights, by the model's own weight; an entry dies with it."""


@contextmanager
def operand_precision(dtype: torch.dtype | None) -> Iterator[None]:
    """Within the block, round differences to this dtype before matrix products; None leaves them as they are."""
    token = _OPERANDS.set(dtype)
    try:
        yield
    finally:
        _OPERANDS.reset(token)


def operand_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a product's operands, for differences of values of this dtype."""
    return _OPERANDS.get() or dtype


def round_operand(d: Tensor) -> Tensor:
    """Round a difference to the dtype that products take."""
    return d.to(operand_dtype(d.dtype))


def product(d: Float[Tensor, "*row inputs"], weight: Tensor, transposed: bool = False) -> Float[Tensor, "*row outputs"]:
    """The product d Wᵀ, in the dtype of `operand_precision`. W is [outputs, inputs]; if `transposed`, the reverse."""
    d = round_operand(d)
    if not d.numel():
        return d.new_empty(*d.shape[:-1], weight.shape[1 if transposed else 0])
    dtype = d.dtype
    d = d.to(_multiplied_in(d.device, dtype))
    if _packs(d.device, d.dtype):
        flat = d.reshape(-1, d.shape[-1])
        packed = _prepare(weight, transposed, dtype)
        result = torch.ops.mkldnn._linear_pointwise(flat, packed, None, "none", [], "").view(*d.shape[:-1], -1)
        return result.to(dtype)
    if weight.dtype != dtype:
        weight = _prepare(weight, transposed, dtype)
    return torch.matmul(d, weight if transposed else weight.t()).to(dtype)


def _multiplied_in(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type that operands of this type are multiplied in.

    CPUs without AVX-512 multiply bfloat16 many times more slowly than float32, so there rounded operands are float32.
    """
    slow = device.type == "cpu" and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.float32 if slow else dtype


def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of this type, which makes products on a CPU up to twice as fast."""
    return device.type == "cpu" and dtype != torch.float64 and torch.backends.mkldnn.is_available()


def _prepare(weight: Tensor, transposed: bool, dtype: torch.dtype) -> Tensor:
    """Round a weight, and pack it on a CPU. Kept until the model's weight is changed or freed."""
    known = _prepared.setdefault(weight, {})
    key = (0 if weight.is_inference() else weight._version, transposed, dtype)
    if key not in known:
        own = weight.detach().to(dtype)
        own = own.to(_multiplied_in(own.device, dtype))
        if _packs(own.device, own.dtype):
            own = torch.ops.mkldnn._reorder_linear_weight((own.t() if transposed else own).contiguous(), ROWS)
        known.clear()
        known[key] = own
    return known[key]


def forget_prepared_weights() -> None:
    """Prepare weights anew when they are next used: counters of changes do not see those made through `.data`."""
    _prepared.clear()


def batched(a: Float[Tensor, "*#batch n inner"], b: Float[Tensor, "*#batch inner m"]) -> Float[Tensor, "*#batch n m"]:
    """Batched matrix products of operands rounded as `operand_precision` says; the result has at least float32.

    On CPUs, batched bfloat16 products are slow, but oneDNN can take float32 and round to bfloat16 internally.
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    if 1 in (a.shape[-1], a.shape[-2] * b.shape[-1]):  # outer or dot products: slow as batched matrix products
        return _of_numbers(a.to(dtype), b.to(dtype))
    if a.device.type != "cpu":
        return torch.matmul(a.to(operand_dtype(dtype)), b.to(operand_dtype(dtype))).to(dtype)
    with _rounding_within(operand_dtype(dtype)):
        return torch.matmul(a.to(dtype), b.to(dtype))


def _of_numbers(a: Tensor, b: Tensor) -> Tensor:
    """The product where the inner dimension is 1, or each result is one number. It is not rounded."""
    return a * b if a.shape[-1] == 1 else torch.linalg.vecdot(a, b.transpose(-2, -1))[..., None]


@contextmanager
def _rounding_within(dtype: torch.dtype) -> Iterator[None]:
    """Within the block, let oneDNN round float32 matrices to bfloat16."""
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
    """`batched` with a left matrix that all points share: the right ones are joined side by side, as one product."""
    points, columns = b.shape[0], b.shape[-1]
    beside = b.movedim(0, -2).flatten(-2)
    return batched(a, beside).unflatten(-1, (points, columns)).movedim(-2, 0)


def shared_right(
    a: Float[Tensor, "point *batch n inner"], b: Float[Tensor, "*batch inner m"]
) -> Float[Tensor, "point *batch n m"]:
    """`batched` with a right matrix that all points share: the left ones are stacked, as one product."""
    points, rows = a.shape[0], a.shape[-2]
    below = a.movedim(0, -3).flatten(-3, -2)
    return batched(below, b).unflatten(-2, (points, rows)).movedim(-3, 0).contiguous()
