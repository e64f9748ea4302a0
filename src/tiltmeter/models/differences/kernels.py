"""Kernels: the exact differences f(x + δ) - f(x) of elementwise functions, norms and softmax.

Each formula is arranged so that nothing cancels: no step subtracts two numbers that nearly agree, so a small δ yields
a difference with nearly all digits of the type, where subtracting two runs would leave none. Where δ is large, the two
values share few digits, and plain subtraction is exact enough; `torch.where` picks between the two. Products of
matrices, where most time goes, are in `products.py`.

Everywhere x is the clean value [*rest] and d or δ the difference [point, *rest], the leading axis the points that
share the clean value. A result has the type of d: differences may be kept in fewer digits than clean values.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.models.differences.compilation import compiled


def logistic_difference(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    """σ(b) - σ(a), where d = b - a: σ(max) σ(-min) (1 - e^(-|d|)), with the sign of d.

    No factor exceeds one, and none is a difference of nearly equal numbers.
    """
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    return torch.sign(d) * torch.sigmoid(high) * torch.sigmoid(-low) * -torch.expm1(-d.abs())


def tanh_difference(x: Tensor, d: Tensor) -> Tensor:
    """tanh(x + δ) - tanh x, from tanh x = 2σ(2x) - 1."""
    return 2 * logistic_difference(2 * x, 2 * (x + d), 2 * d)


GELU_SCALE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


@compiled
def gelu_tanh_difference(x: Float[Tensor, "*rest"], d: Float[Tensor, "point *rest"]) -> Float[Tensor, "point *rest"]:
    """The difference of xσ(u), u = s(x + kx³), where u changes by e = sδ(1 + k(3x(x + δ) + δ²)); see `_gated`."""
    kind, d = d.dtype, d.to(x.dtype)
    y = x + d
    u, v = GELU_SCALE * (x + GELU_CUBE * x * x * x), GELU_SCALE * (y + GELU_CUBE * y * y * y)
    e = GELU_SCALE * d * (1 + GELU_CUBE * (3 * x * y + d * d))
    return _gated(x, d, *_gate(u, v, e)).to(kind)


@compiled
def silu_difference(x: Float[Tensor, "*rest"], d: Float[Tensor, "point *rest"]) -> Float[Tensor, "point *rest"]:
    """The difference of xσ(x); see `_gated`."""
    kind, d = d.dtype, d.to(x.dtype)
    return _gated(x, d, *_gate(x, x + d, d)).to(kind)


def _gated(x: Tensor, d: Tensor, lower: Tensor, rise: Tensor) -> Tensor:
    """(x + δ)h - xg for a gate that changes from g to h: δ min(g, h) + max(x, x + δ)(h - g).

    Holds where the gate is monotone in x, as σ and Φ are.
    """
    return d * lower + torch.maximum(x, x + d) * rise


SHUT = 40.0
"""Beyond this, σ is 0 or 1 to all digits."""


def _gate(u: Tensor, v: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Return min(σ(u), σ(v)) and σ(v) - σ(u), where e = v - u; h and l are the larger and smaller of u and v.

        s = σ(h), q = σ(-h), k = l - h ≤ 0:    σ(l) = s eᵏ / (q + s eᵏ),    σ(l) - σ(h) = s q (eᵏ - 1) / (q + s eᵏ),

    in which nothing cancels. For small |e|, k is taken from e itself; for large |e|, l - h is exact enough.
    """
    high, low = torch.maximum(u, v).clamp(-SHUT, SHUT), torch.minimum(u, v).clamp(-SHUT, SHUT)
    near = e.abs() < SMALL
    k = torch.where(near, -e.abs(), low - high)
    t, shared = torch.exp(-high.abs()), torch.exp(k)
    one, other = torch.where(high > 0, 1.0, t), torch.where(high > 0, t, 1.0)  # s and q, times 1 + t
    total = other + one * shared
    scale = 1 / ((1 + t) * total)  # the only division
    q, share = other * total * scale, one * (1 + t) * scale
    fall = share * q * torch.where(near, k * _exponential_series(k, 1), shared - 1)
    return share * shared, torch.where(e > 0, -fall, fall)


NODES = (-0.9061798459386640, -0.5384693101056831, 0.0, 0.5384693101056831, 0.9061798459386640)
WEIGHTS = (0.2369268850561891, 0.4786286704993665, 0.5688888888888889, 0.4786286704993665, 0.2369268850561891)
"""Gauss-Legendre quadrature on [-1, 1]."""

NEAR = 1.0
"""Up to this |δ| the normal density is integrated by quadrature; beyond it, subtraction is exact enough."""


@compiled
def gelu_difference(x: Float[Tensor, "*rest"], d: Float[Tensor, "point *rest"]) -> Float[Tensor, "point *rest"]:
    """The difference of xΦ(x); see `_gated`."""
    kind, d = d.dtype, d.to(x.dtype)
    return _gated(x, d, _normal(torch.minimum(x, x + d)), normal_difference(x, d)).to(kind)


def _normal(x: Tensor) -> Tensor:
    """Φ, accurate in its lower tail, where torch's `ndtr` loses digits."""
    return 0.5 * torch.erfc(-math.sqrt(0.5) * x)


def normal_difference(x: Tensor, d: Tensor) -> Tensor:
    """Φ(x + δ) - Φ(x), the integral of the normal density: by quadrature, or for large δ by subtraction of tails."""
    half = d / 2
    near = torch.zeros_like(d)
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        at = x + half * (1 + node)
        near = near + weight * torch.exp(-at * at / 2)
    y = x + d
    side = torch.where(x + y > 0, -1.0, 1.0).to(x.dtype)  # subtract on the side where both tails are small
    far = side * (_normal(side * y) - _normal(side * x))
    return torch.where(d.abs() <= NEAR, half * near / math.sqrt(2 * math.pi), far)


@compiled
def layer_norm_difference(
    u: Float[Tensor, "*rest width"],
    v: Float[Tensor, "*rest 1"],
    d: Float[Tensor, "point *rest width"],
    weight: Float[Tensor, "width"],
    eps: float,
    kind: torch.dtype,
) -> Float[Tensor, "point *rest width"]:
    """The difference of wu/√v, u centred, v its variance plus eps, through that of the variance: Δv = mean(δ(2u + δ)).

    w(δs + u(s - r)), r = 1/√v, s = 1/√(v + Δv), s - r = -Δv r² s² / (r + s), with δ centred. s is computed
    from u + δ itself, because v + Δv would cancel if the perturbation removes most of the variance. Where the variance
    changes by half or more, plain subtraction is exact enough.
    """
    d = d.to(u.dtype)
    d = d - d.mean(-1, keepdim=True)
    y = u + d
    dv = (d * (2 * u + d)).mean(-1, keepdim=True)
    r, s = v.rsqrt(), (y.square().mean(-1, keepdim=True) + eps).rsqrt()
    near = d * s - u * (dv * (r * s).square() / (r + s))
    return (weight * torch.where(dv.abs() < v / 2, near, y * s - u * r)).to(kind)


@compiled
def product_difference(
    x: Float[Tensor, "*#rest"],
    d: Float[Tensor, "point *#rest"],
    y: Float[Tensor, "*#rest"],
    e: Float[Tensor, "point *#rest"],
) -> Float[Tensor, "point *#rest"]:
    """The difference of xy: xε + δ(y + ε); where |ε| ≥ |y|, by subtraction, which is exact enough there."""
    return torch.where(e.abs() < y.abs(), x * e + d * (y + e), (x + d) * (y + e) - x * y)


@compiled
def paired_query(
    q: Float[Tensor, "*rest head"], d: Float[Tensor, "point *rest head"], scale: float, kind: torch.dtype
) -> Float[Tensor, "point *rest two_heads"]:
    """The pair (δ, q), so that one product with `paired_key` is the difference of the scores.

    (δ, q) · (k + ε, ε) = δ(k + ε) + qε.
    """
    d = d.to(q.dtype) * scale
    return torch.cat([d, (q * scale).expand_as(d)], -1).to(kind)


@compiled
def paired_key(
    k: Float[Tensor, "*rest head"], d: Float[Tensor, "point *rest head"], kind: torch.dtype
) -> Float[Tensor, "point *rest two_heads"]:
    """The pair (k + ε, ε); see `paired_query`."""
    d = d.to(k.dtype)
    return torch.cat([k + d, d], -1).to(kind)


@compiled
def perturbed(x: Float[Tensor, "*rest"], d: Float[Tensor, "point *rest"]) -> Float[Tensor, "point *rest"]:
    """The clean value plus the difference."""
    return x + d.to(x.dtype)


TERMS = {torch.float32: 10, torch.float64: 16}
"""Terms of the exponential series: for |x| below `SMALL`, the remainder is below rounding."""

SMALL = 0.7
"""Below this |x| a series is summed; above it, direct evaluation loses few digits."""

FAR = 80.0
"""Where a score rises this far above the mean change, two softmaxes are subtracted: they share nothing."""


@compiled
def softmax_difference_near(
    p: Float[Tensor, "*rest key"], d: Float[Tensor, "point *rest key"]
) -> tuple[Float[Tensor, "point *rest key"], Float[Tensor, "point *rest"]]:
    """The change of softmax probabilities p when scores change by δ, and the largest rise above the mean change.

    (e - p S) / (1 + S), e = p expm1(δ - c), S = Σ e, for any c; here c = Σ p δ, the mean change. Valid up to `FAR`.
    """
    d = d.to(p.dtype)
    risen = d - (p * d).sum(-1, keepdim=True)
    e = p * expm1(risen.clamp(max=FAR))
    total = e.sum(-1, keepdim=True)
    return (e - p * total) / (1 + total), risen.amax(-1)


@compiled
def softmax_difference_far(
    scores: Float[Tensor, "*rest key"],
    p: Float[Tensor, "*rest key"],
    d: Float[Tensor, "point *rest key"],
    near: Float[Tensor, "point *rest key"],
) -> Float[Tensor, "point *rest key"]:
    """`near`, with the plain difference of two softmaxes where a score rises beyond `FAR`."""
    masked = scores < torch.finfo(scores.dtype).min / 2  # some models mask with the lowest finite number, not -inf
    d = torch.where(masked, 0.0, d.to(p.dtype))
    far = (d - (p * d).sum(-1, keepdim=True)).amax(-1, keepdim=True) > FAR
    return torch.where(far, torch.softmax(scores + d, -1) - p, near)


def phi(x: Tensor) -> Tensor:
    """eˣ - 1 - x to a few units in the last place; by its series for small x."""
    return torch.where(x.abs() < SMALL, x * x * _exponential_series(x, 2), torch.exp(x) - 1 - x)


def expm1(x: Tensor) -> Tensor:
    """eˣ - 1, likewise. Compiled, `torch.expm1` becomes exp(x) - 1, which loses the digits of small x."""
    return torch.where(x.abs() < SMALL, x * _exponential_series(x, 1), torch.exp(x) - 1)


def _exponential_series(x: Tensor, first: int) -> Tensor:
    """Σ xⁿ⁻ᵏ / n! over n ≥ k = `first`: (eˣ minus its first k terms) / xᵏ, for |x| below `SMALL`."""
    terms = TERMS[x.dtype]
    total = torch.full_like(x, 1 / math.factorial(terms))
    for n in range(terms - 1, first - 1, -1):
        total = 1 / math.factorial(n) + x * total
    return total


@compiled
def phi_sum(
    p: Float[Tensor, "token column"], change: Float[Tensor, "point token column"], mean: Float[Tensor, "point token 1"]
) -> Float[Tensor, "point token"]:
    """Σ p φ(dz - c) over a block of the vocabulary (`tiltmeter.models.chunked_kl`)."""
    return (p * phi(change.to(p.dtype) - mean)).sum(-1)


@compiled
def log_sum_exp(x: Float[Tensor, "row column"]) -> Float[Tensor, "row"]:
    """Log Σ eˣ over the last axis."""
    top = x.amax(-1, keepdim=True)
    return (torch.exp(x - top).sum(-1, keepdim=True).log() + top)[..., 0]
