"""Difference rules of arithmetic and of elementwise functions: f(x + δ) - f(x) without cancellation."""

from __future__ import annotations

from typing import Any

import torch

from tiltmeter.models.differences import kernels
from tiltmeter.models.differences.reshaping import axis_behind
from tiltmeter.models.differences.shifted import Shifted, clean_and_difference, no_rule, rule
from tiltmeter.models.differences.tape import once


def _one_shifted(a: Any, b: Any) -> Shifted:
    return a if isinstance(a, Shifted) else b


@rule(torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
def add(a: Any, b: Any) -> Shifted:
    """(x + δ) + (y + ε) - (x + y) = δ + ε."""
    like = _one_shifted(a, b)
    (x, dx), (y, dy) = clean_and_difference(a, like), clean_and_difference(b, like)
    clean = once(torch.add, x, y)
    difference = dy if dx is None else dx if dy is None else dx + dy
    perturbed = (
        None
        if like.perturbed is None or (dx is not None and dy is not None)
        else like.perturbed + (y if dy is None else x)
    )
    return Shifted(clean, difference.to(clean.dtype), perturbed)  # the stream is a long sum: it keeps full precision


@rule(torch.neg, torch.Tensor.neg, torch.Tensor.__neg__)
def negate(a: Shifted) -> Shifted:
    """-(x + δ) - (-x) = -δ."""
    return Shifted(-a.clean, -a.difference)


@rule(torch.sub, torch.Tensor.sub, torch.Tensor.__sub__)
def subtract(a: Any, b: Any) -> Shifted:
    """(x + δ) - (y + ε) - (x - y) = δ - ε."""
    return add(a, negate(b) if isinstance(b, Shifted) else -b)


@rule(torch.Tensor.__rsub__, torch.rsub)
def subtract_from(a: Any, b: Any) -> Shifted:
    """The reflected subtraction, b - a."""
    return subtract(b, a)


@rule(torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__)
def multiply(a: Any, b: Any) -> Shifted:
    """(x + δ)(y + ε) - xy = xε + δ(y + ε)."""
    like = _one_shifted(a, b)
    (x, dx), (y, dy) = clean_and_difference(a, like), clean_and_difference(b, like)
    clean = once(torch.mul, x, y)
    if dx is None:
        return Shifted(clean, x * dy)
    return Shifted(clean, dx * y if dy is None else kernels.product_difference(x, dx, y, dy))


@rule(torch.div, torch.Tensor.div, torch.Tensor.__truediv__)
def divide(a: Any, b: Any) -> Shifted:
    """(x + δ)/(y + ε) - x/y = (δ - (x/y)ε) / (y + ε)."""
    like = _one_shifted(a, b)
    (x, dx), (y, dy) = clean_and_difference(a, like), clean_and_difference(b, like)
    quotient = once(torch.div, x, y)
    if dy is None:
        return Shifted(quotient, dx / y)
    return Shifted(quotient, ((0.0 if dx is None else dx) - quotient * dy) / (y + dy))


@rule(torch.pow, torch.Tensor.pow, torch.Tensor.__pow__)
def power(a: Shifted, exponent: Any) -> Shifted:
    """(x + δ)² - x² = δ(2x + δ); (x + δ)³ - x³ = δ(3x² + 3xδ + δ²)."""
    x, d = a.clean, a.difference
    if exponent == 2:
        return Shifted(once(torch.square, x), d * (2 * x + d), (x + d).square())
    if exponent == 3:
        return Shifted(once(torch.pow, x, 3), d * (3 * x * (x + d) + d.square()))
    raise no_rule(f"the power {exponent}")


@rule(torch.mean, torch.Tensor.mean)
def mean(a: Shifted, dim: Any, keepdim: bool = False, **_: Any) -> Shifted:
    """The mean is linear: the mean of the difference."""
    axes = dim if isinstance(dim, tuple | list) else (dim,)
    behind = [axis_behind(axis) for axis in axes]
    perturbed = None if a.perturbed is None else a.perturbed.mean(behind, keepdim)
    return Shifted(once(torch.mean, a.clean, axes, keepdim), a.difference.mean(behind, keepdim), perturbed)


@rule(torch.rsqrt, torch.Tensor.rsqrt)
def rsqrt(a: Shifted) -> Shifted:
    """1/√(x + δ) - 1/√x = -δ r² s² / (r + s), where r = 1/√x and s = 1/√(x + δ)."""
    r, s = once(torch.rsqrt, a.clean), (a.clean + a.difference if a.perturbed is None else a.perturbed).rsqrt()
    return Shifted(r, -a.difference * (r * s).square() / (r + s))


@rule(torch.tanh, torch.Tensor.tanh)
def tanh(a: Shifted) -> Shifted:
    """See `kernels.tanh_difference`."""
    return Shifted(once(torch.tanh, a.clean), kernels.tanh_difference(a.clean, a.difference))


@rule(torch.sigmoid, torch.Tensor.sigmoid)
def sigmoid(a: Shifted) -> Shifted:
    """See `kernels.logistic_difference`."""
    return Shifted(
        once(torch.sigmoid, a.clean), kernels.logistic_difference(a.clean, a.clean + a.difference, a.difference)
    )


@rule(torch.nn.functional.silu)
def silu(a: Shifted, **_: Any) -> Shifted:
    """See `kernels.silu_difference`."""
    return Shifted(once(torch.nn.functional.silu, a.clean), kernels.silu_difference(a.clean, a.difference))


@rule(torch.nn.functional.relu, torch.relu, torch.Tensor.relu)
def relu(a: Shifted, **_: Any) -> Shifted:
    """max(x + δ, 0) - max(x, 0): δ where both are positive, else at most one of them is not zero."""
    x, d = a.clean, a.difference
    y = x + d
    return Shifted(once(torch.relu, x), torch.where((x > 0) & (y > 0), d, y.relu() - x.relu()))


GELUS = {"none": kernels.gelu_difference, "tanh": kernels.gelu_tanh_difference}


@rule(torch.nn.functional.gelu)
def gelu(a: Shifted, approximate: str = "none") -> Shifted:
    """The difference of xΦ(x), or of its tanh approximation."""
    clean = once(lambda x: torch.nn.functional.gelu(x, approximate=approximate), a.clean)
    return Shifted(clean, GELUS[approximate](a.clean, a.difference))
