"""Rules of arithmetic and of functions of one number: f(x + δ) - f(x) without subtracting what the two share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tiltmeter.differences.shapes import axis_behind
from tiltmeter.differences.shifted import Shifted, no_rule, parts, rule


def _one_shifted(a: Any, b: Any) -> Shifted:
    return a if isinstance(a, Shifted) else b


@rule(torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
def add(a: Any, b: Any) -> Shifted:
    """The sum of the differences."""
    like = _one_shifted(a, b)
    (x, dx), (y, dy) = parts(a, like), parts(b, like)
    return Shifted(x + y, dy if dx is None else dx if dy is None else dx + dy)


@rule(torch.neg, torch.Tensor.neg, torch.Tensor.__neg__)
def negate(a: Shifted) -> Shifted:
    """Of both."""
    return Shifted(-a.clean, -a.difference)


@rule(torch.sub, torch.Tensor.sub, torch.Tensor.__sub__)
def subtract(a: Any, b: Any) -> Shifted:
    """The sum with the negative."""
    return add(a, negate(b) if isinstance(b, Shifted) else -b)


@rule(torch.Tensor.__rsub__, torch.rsub)
def subtract_from(a: Any, b: Any) -> Shifted:
    """Turned round."""
    return subtract(b, a)


@rule(torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__)
def multiply(a: Any, b: Any) -> Shifted:
    """(x + δ)(y + ε) - xy = xε + δ(y + ε)."""
    like = _one_shifted(a, b)
    (x, dx), (y, dy) = parts(a, like), parts(b, like)
    if dx is None:
        return Shifted(x * y, x * dy)
    return Shifted(x * y, dx * y if dy is None else torch.addcmul(dx * (y + dy), x, dy))


@rule(torch.div, torch.Tensor.div, torch.Tensor.__truediv__)
def divide(a: Any, b: Any) -> Shifted:
    """(x + δ)/(y + ε) - x/y = (δ - (x/y)ε) / (y + ε)."""
    like = _one_shifted(a, b)
    (x, dx), (y, dy) = parts(a, like), parts(b, like)
    quotient = x / y
    if dy is None:
        return Shifted(quotient, dx / y)
    return Shifted(quotient, ((0.0 if dx is None else dx) - quotient * dy) / (y + dy))


@rule(torch.pow, torch.Tensor.pow, torch.Tensor.__pow__)
def power(a: Shifted, exponent: Any) -> Shifted:
    """(x + δ)² - x² = δ(2x + δ); (x + δ)³ - x³ = δ(3x² + 3xδ + δ²)."""
    x, d = a.clean, a.difference
    if exponent == 2:
        return Shifted(x.square(), d * (2 * x + d))
    if exponent == 3:
        return Shifted(x**3, d * (3 * x * (x + d) + d.square()))
    raise no_rule(f"the power {exponent}")


@rule(torch.mean, torch.Tensor.mean)
def mean(a: Shifted, dim: Any, keepdim: bool = False, **_: Any) -> Shifted:
    """Of the difference alike."""
    axes = dim if isinstance(dim, tuple | list) else (dim,)
    return Shifted(a.clean.mean(axes, keepdim), a.difference.mean([axis_behind(axis) for axis in axes], keepdim))


@rule(torch.rsqrt, torch.Tensor.rsqrt)
def rsqrt(a: Shifted) -> Shifted:
    """1/√(x + δ) - 1/√x = -δ r² s² / (r + s), r and s the two reciprocal roots."""
    r, s = a.clean.rsqrt(), (a.clean + a.difference).rsqrt()
    return Shifted(r, -a.difference * (r * s).square() / (r + s))


def tanh_difference(x: Tensor, d: Tensor) -> Tensor:
    """tanh(x + δ) - tanh x = sinh δ / (cosh x cosh(x + δ)), written in exponentials of what is not positive.

    With y = x + δ it is sign(δ) · 2 (1 - e^(-2|δ|)) e^(|δ| - |x| - |y|) / ((1 + e^(-2|x|)) (1 + e^(-2|y|))), and
    |δ| - |x| - |y| is -2 min(|x|, |y|) where x and y have one sign, else 0.
    """
    y = x + d
    near, far = x.abs(), y.abs()
    scale = torch.exp(torch.where(x * y > 0, -2 * torch.minimum(near, far), 0.0))
    scale = scale / ((1 + torch.exp(-2 * near)) * (1 + torch.exp(-2 * far)))
    return torch.sign(d) * (-2 * torch.expm1(-2 * d.abs())) * scale


@rule(torch.tanh, torch.Tensor.tanh)
def tanh(a: Shifted) -> Shifted:
    """By `tanh_difference`."""
    return Shifted(a.clean.tanh(), tanh_difference(a.clean, a.difference))


@rule(torch.sigmoid, torch.Tensor.sigmoid)
def sigmoid(a: Shifted) -> Shifted:
    """σ(x) = (1 + tanh(x/2)) / 2."""
    return Shifted(a.clean.sigmoid(), tanh_difference(a.clean / 2, a.difference / 2) / 2)


@rule(torch.nn.functional.silu)
def silu(a: Shifted, **_: Any) -> Shifted:
    """xσ(x), as a product."""
    return multiply(a, sigmoid(a))


@rule(torch.nn.functional.relu, torch.relu, torch.Tensor.relu)
def relu(a: Shifted, **_: Any) -> Shifted:
    """max(x + δ, 0) - max(x, 0): δ where both are positive, else one of them alone."""
    x, d = a.clean, a.difference
    y = x + d
    return Shifted(x.relu(), torch.where((x > 0) & (y > 0), d, y.relu() - x.relu()))


NODES = (-0.9061798459386640, -0.5384693101056831, 0.0, 0.5384693101056831, 0.9061798459386640)
WEIGHTS = (0.2369268850561891, 0.4786286704993665, 0.5688888888888889, 0.4786286704993665, 0.2369268850561891)
"""Gauss-Legendre quadrature on [-1, 1]."""

NEAR = 1.0
"""Up to this difference the normal distribution is integrated by quadrature; beyond, little is shared."""


def normal_difference(x: Tensor, d: Tensor) -> Tensor:
    """Φ(x + δ) - Φ(x), the integral of the normal density: by quadrature, or far apart by subtraction of tails."""
    half = d / 2
    near = sum(
        weight * torch.exp(-((x + half * (1 + node)) ** 2) / 2) for node, weight in zip(NODES, WEIGHTS, strict=True)
    )
    y = x + d
    side = torch.where(x + y > 0, -1.0, 1.0).to(x.dtype)  # both tails on the side where they are small
    far = side * (torch.special.ndtr(side * y) - torch.special.ndtr(side * x))
    return torch.where(d.abs() <= NEAR, half * near / math.sqrt(2 * math.pi), far)


@rule(torch.nn.functional.gelu)
def gelu(a: Shifted, approximate: str = "none") -> Shifted:
    """xΦ(x), or with tanh in the place of the normal distribution."""
    if approximate == "tanh":
        inner = multiply(math.sqrt(2 / math.pi), add(a, multiply(0.044715, power(a, 3))))
        return multiply(multiply(a, 0.5), add(tanh(inner), 1.0))
    x, d = a.clean, a.difference
    whole = torch.special.ndtr(x)
    change = normal_difference(x, d)
    return Shifted(x * whole, d * (whole + change) + x * change)
