"""Difference rules of linear maps, LayerNorm and softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tiltmeter.models.differences import kernels
from tiltmeter.models.differences.products import batched, operand_dtype, product, shared
from tiltmeter.models.differences.reshaping import to
from tiltmeter.models.differences.shifted import Shifted, clean_and_difference, no_rule, rule
from tiltmeter.models.differences.tape import once


@rule(functional.linear)
def linear(a: Shifted, weight: Tensor, bias: Tensor | None = None) -> Shifted:
    """W(x + δ) + b - (Wx + b) = Wδ."""
    return Shifted(once(functional.linear, a.clean, weight, bias), product(a.difference, weight))


@rule(torch.addmm)
def addmm(bias: Tensor, a: Shifted, weight: Tensor) -> Shifted:
    """The same for GPT-2's projections, whose weight is [inputs, outputs]."""
    return Shifted(once(torch.addmm, bias, a.clean, weight), product(a.difference, weight, transposed=True))


@rule(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
def matmul(a: Any, b: Any) -> Shifted:
    """(x + δ)(y + ε) - xy = xε + δ(y + ε), of matrices."""
    like = a if isinstance(a, Shifted) else b
    (x, dx), (y, dy) = clean_and_difference(a, like), clean_and_difference(b, like)
    clean = once(torch.matmul, x, y)
    if dx is None:
        return Shifted(clean, shared(x, dy))
    return Shifted(clean, batched(dx, y) if dy is None else shared(x, dy) + batched(dx, y + dy))


@rule(functional.layer_norm, torch.layer_norm)
def layer_norm(
    a: Shifted,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Shifted:
    """The difference of LayerNorm over the last axis: see `kernels.layer_norm_difference`."""
    if len(normalized_shape) != 1:
        raise no_rule("a norm over several axes")
    clean = once(functional.layer_norm, a.clean, normalized_shape, weight, bias, eps)
    u, v = once(_centred, a.clean, eps)
    weight = a.clean.new_ones(normalized_shape) if weight is None else weight
    return Shifted(clean, kernels.layer_norm_difference(u, v, a.difference, weight, eps, operand_dtype(a.clean.dtype)))


def _centred(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    u = x - x.mean(-1, keepdim=True)
    return u, u.square().mean(-1, keepdim=True) + eps


def softmax_difference(scores: Tensor, p: Tensor, d: Tensor) -> Tensor:
    """The change of softmax probabilities p when their scores change by d; masked entries stay zero."""
    near, risen = kernels.softmax_difference_near(p, d)
    if not near.numel() or (
        d.device.type == "cpu" and float(risen.max()) < kernels.FAR
    ):  # reading `risen` would stall a GPU
        return near
    return kernels.softmax_difference_far(scores, p, d, near)


@rule(functional.softmax, torch.softmax, torch.Tensor.softmax)
def softmax(a: Shifted, dim: int = -1, **named: Any) -> Shifted:
    """Softmax over the last axis, as attention takes it."""
    if dim not in (-1, a.ndim - 1):
        raise no_rule("a softmax over another axis than the last")
    a = to(a, named.get("dtype") or a.dtype)
    p = once(torch.softmax, a.clean, -1)
    return Shifted(p, softmax_difference(a.clean, p, a.difference))
