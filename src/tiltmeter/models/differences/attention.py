"""The difference rule of attention: those of scores, softmax and weighted sum, one after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tiltmeter.models.differences import kernels
from tiltmeter.models.differences.layers import softmax_difference
from tiltmeter.models.differences.products import batched, operand_dtype, shared, shared_right
from tiltmeter.models.differences.reshaping import CleanPrefix
from tiltmeter.models.differences.shifted import Shifted, clean_rows, rule
from tiltmeter.models.differences.tape import once


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
    """The difference of softmax(s q·k) v, from the differences of q, k and v."""
    assert dropout_p == 0.0, "models are measured in evaluation"
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = _repeated(key, groups), _repeated(value, groups)
    mask = None if attn_mask is None else clean_rows(attn_mask, query)
    scores, p, clean = once(_attend, query.clean, key.clean, value.clean, mask, is_causal, scale)
    if isinstance(key, CleanPrefix) and isinstance(value, CleanPrefix):
        dp = softmax_difference(scores, p, _scores_after_prefix(query, key, scale))
        return Shifted(clean, _sum_after_prefix(p, dp, value))
    dp = softmax_difference(scores, p, _scores(query, key, scale))
    return Shifted(clean, batched(dp, kernels.perturbed(value.clean, value.difference)) + shared(p, value.difference))


def _scores(query: Shifted, key: Shifted, scale: float) -> Tensor:
    """The difference of the scores, s (δ(k + ε) + qε), as one matrix product."""
    kind = operand_dtype(query.clean.dtype)
    left = kernels.paired_query(query.clean, query.difference, scale, kind)
    right = kernels.paired_key(key.clean, key.difference, kind)
    return torch.matmul(left, right.transpose(-2, -1))


def _scores_after_prefix(query: Shifted, key: CleanPrefix, scale: float) -> Tensor:
    """The same where only later keys are perturbed: δk for all keys, and (q + δ)ε for the perturbed ones."""
    scores = shared_right(query.difference * scale, key.clean.transpose(-2, -1))
    perturbed = kernels.perturbed(query.clean, query.difference) * scale
    scores[..., -key.tail.shape[-2] :] += batched(perturbed, key.tail.transpose(-2, -1))
    return scores


def _sum_after_prefix(p: Tensor, dp: Tensor, value: CleanPrefix) -> Tensor:
    """The difference of the weighted sum: dp v for all values, and (p + dp) ε for the perturbed ones."""
    perturbed = slice(-value.tail.shape[-2], None)
    return shared_right(dp, value.clean) + batched(p[..., perturbed] + dp[..., perturbed], value.tail)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Masked scores, attention probabilities, and the weighted sum of values."""
    scores = (q * scale) @ k.transpose(-2, -1)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    p = torch.softmax(scores, -1)
    return scores, p, p @ v


def _repeated(heads: Shifted, groups: int) -> Shifted:
    clean = heads.clean.repeat_interleave(groups, -3)
    if isinstance(heads, CleanPrefix):
        return CleanPrefix(clean, heads.tail.repeat_interleave(groups, -3))
    return Shifted(clean, heads.difference.repeat_interleave(groups, -3))
