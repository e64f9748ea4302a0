"""The rule of attention: scores, softmax and weighted sum, each by its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tiltmeter.differences import kernels
from tiltmeter.differences.networks import softmax_difference
from tiltmeter.differences.products import batched, rounding, shared
from tiltmeter.differences.shifted import Shifted, clean_rows, rule
from tiltmeter.differences.tape import once


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
    """Of softmax(s q·k) v."""
    assert dropout_p == 0.0, "models are measured in evaluation"
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = _repeated(key, groups), _repeated(value, groups)
    mask = None if attn_mask is None else clean_rows(attn_mask, query)
    scores, p, clean = once(_attend, query.clean, key.clean, value.clean, mask, is_causal, scale)
    kind = rounding(query.clean.dtype)
    left = kernels.query_beside(query.clean, query.difference, scale, kind)
    right = kernels.key_beside(key.clean, key.difference, kind)
    dp = softmax_difference(scores, p, torch.matmul(left, right.transpose(-2, -1)))
    moved = kernels.moved(value.clean, value.difference)
    return Shifted(clean, batched(dp, moved) + shared(p, value.difference))


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Masked scores, their softmax, and what it gives."""
    scores = (q * scale) @ k.transpose(-2, -1)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    p = torch.softmax(scores, -1)
    return scores, p, p @ v


def _repeated(heads: Shifted, groups: int) -> Shifted:
    return Shifted(heads.clean.repeat_interleave(groups, -3), heads.difference.repeat_interleave(groups, -3))
