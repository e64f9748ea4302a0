"""Rules of linear maps, normalisation and attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tiltmeter.differences.shapes import to
from tiltmeter.differences.shifted import Shifted, clean_rows, no_rule, parts, rule


@rule(functional.linear)
def linear(a: Shifted, weight: Tensor, bias: Tensor | None = None) -> Shifted:
    """Acts on the difference alone; the bias is in the clean value."""
    return Shifted(functional.linear(a.clean, weight, bias), functional.linear(a.difference, weight))


@rule(torch.addmm)
def addmm(bias: Tensor, a: Shifted, weight: Tensor) -> Shifted:
    """GPT-2's projections."""
    return Shifted(torch.addmm(bias, a.clean, weight), a.difference @ weight)


@rule(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
def matmul(a: Any, b: Any) -> Shifted:
    """As a product of numbers: xε + δ(y + ε)."""
    like = a if isinstance(a, Shifted) else b
    (x, dx), (y, dy) = parts(a, like), parts(b, like)
    if dx is None:
        return Shifted(x @ y, x @ dy)
    return Shifted(x @ y, dx @ y if dy is None else x @ dy + dx @ (y + dy))


@rule(functional.layer_norm, torch.layer_norm)
def layer_norm(
    a: Shifted,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Shifted:
    """Through the difference of variances: with u = x and δ less their means, Δv = mean(δ(2u + δ)).

    The result's difference is δs + u(s - r), r = 1/√(v + eps), s = 1/√(v + Δv + eps), s - r = -Δv r² s² / (r + s).
    """
    axes = tuple(range(-len(normalized_shape), 0))
    u = a.clean - a.clean.mean(axes, keepdim=True)
    d = a.difference - a.difference.mean(axes, keepdim=True)
    v, dv = u.square().mean(axes, keepdim=True), (d * (2 * u + d)).mean(axes, keepdim=True)
    r, s = (v + eps).rsqrt(), (v + dv + eps).rsqrt()
    change = d * s - u * (dv * (r * s).square() / (r + s))
    clean = functional.layer_norm(a.clean, normalized_shape, weight, bias, eps)
    return Shifted(clean, change if weight is None else change * weight)


FAR = 20.0
"""Where a score rises so far above the mean change, the two distributions share little, and are subtracted."""


def softmax_difference(scores: Tensor, p: Tensor, d: Tensor) -> Tensor:
    """What probabilities p of scores change where the scores change by δ.

    p (e - S) / (1 + S), e = expm1(δ - c), S = Σ p e, for any c: the mean change, Σ p δ.
    """
    d = torch.where(torch.isneginf(scores), 0.0, d)  # masked scores stay so
    centred = torch.where(p > 0, d - (p * d).sum(-1, keepdim=True), 0.0)
    e = torch.expm1(centred.clamp(max=FAR))
    total = (p * e).sum(-1, keepdim=True)
    near = p * (e - total) / (1 + total)
    far = (d - (p * d).sum(-1, keepdim=True)).amax(-1, keepdim=True) > FAR
    return torch.where(far, torch.softmax(scores + d, -1) - p, near) if bool(far.any()) else near


@rule(functional.softmax, torch.softmax, torch.Tensor.softmax)
def softmax(a: Shifted, dim: int = -1, **named: Any) -> Shifted:
    """Over the last axis, as attention has it."""
    if dim not in (-1, a.ndim - 1):
        raise no_rule("a softmax over another axis than the last")
    a = to(a, named.get("dtype") or a.dtype)
    p = torch.softmax(a.clean, -1)
    return Shifted(p, softmax_difference(a.clean, p, a.difference))


@rule(functional.scaled_dot_product_attention)
def attention(
    query: Shifted,
    key: Shifted,
    value: Shifted,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Shifted:
    """Scores, softmax and weighted sum, each by its rule."""
    assert dropout_p == 0.0, "models are measured in evaluation"
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = _repeated(key, groups), _repeated(value, groups)
    scores = matmul(query, Shifted(key.clean.transpose(-2, -1), key.difference.transpose(-2, -1)))
    clean, change = scores.clean * scale, scores.difference * scale
    if is_causal:
        seen = torch.ones(clean.shape[-2:], dtype=torch.bool, device=clean.device).tril()
        clean = clean.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        mask = clean_rows(attn_mask, query)
        clean = clean.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else clean + mask
    p = torch.softmax(clean, -1)
    return matmul(Shifted(p, softmax_difference(clean, p, change)), value)


def _repeated(heads: Shifted, groups: int) -> Shifted:
    return Shifted(heads.clean.repeat_interleave(groups, -3), heads.difference.repeat_interleave(groups, -3))
