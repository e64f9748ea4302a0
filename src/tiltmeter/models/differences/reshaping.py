"""Difference rules of reshaping: the difference is reshaped like the clean value, after its leading axis of points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tiltmeter.models.differences.shifted import Shifted, clean_rows, no_rule, rule
from tiltmeter.models.differences.tape import once


def axis_behind(axis: int) -> int:
    """The axis of the difference that corresponds to an axis of the rows."""
    return axis if axis < 0 else axis + 1


def _sizes(sizes: Sequence[Any]) -> tuple[int, ...]:
    first = sizes[0]
    return tuple(first) if isinstance(first, Sequence | torch.Size) else tuple(sizes)


@rule(torch.Tensor.view, torch.Tensor.reshape, torch.reshape)
def view(x: Shifted, *sizes: Any, **named: Any) -> Shifted:
    """Reshape; the first size given counts the rows of all points, the others are those of the clean value."""
    first, *rest = _sizes(sizes or (named["shape"],))
    clean = x.clean.reshape(first if first == -1 else first // max(1, x.points), *rest)
    return Shifted(clean, x.difference.reshape(x.points, *clean.shape))


@rule(torch.Tensor.transpose, torch.transpose)
def transpose(x: Shifted, one: int, other: int) -> Shifted:
    """Transpose two axes, neither of them the rows."""
    return Shifted(x.clean.transpose(one, other), x.difference.transpose(axis_behind(one), axis_behind(other)))


@rule(torch.Tensor.permute, torch.permute)
def permute(x: Shifted, *axes: Any) -> Shifted:
    """Permute the axes; the rows must stay first."""
    order = _sizes(axes)
    return Shifted(x.clean.permute(order), x.difference.permute(0, *(axis % x.ndim + 1 for axis in order)))


@rule(torch.Tensor.contiguous, torch.Tensor.clone, torch.clone)
def contiguous(x: Shifted, **_: Any) -> Shifted:
    """Copy clean value and difference to contiguous memory."""
    return Shifted(x.clean.contiguous(), x.difference.contiguous())


@rule(torch.Tensor.to, torch.Tensor.type, torch.Tensor.type_as)
def to(x: Shifted, target: Any = None, *_: Any, **named: Any) -> Shifted:
    """Convert to a dtype of higher precision; ignore any other conversion, to keep the digits."""
    dtype = named.get("dtype", target.dtype if isinstance(target, Tensor) else target)
    if not isinstance(dtype, torch.dtype) or torch.finfo(dtype).bits <= torch.finfo(x.dtype).bits:
        return x
    return Shifted(x.clean.to(dtype), x.difference.to(dtype))


@rule(torch.Tensor.float)
def as_float(x: Shifted) -> Shifted:
    """Convert to float32 if the precision is lower."""
    return to(x, torch.float32)


@rule(torch.nn.functional.dropout, torch.Tensor.detach)
def unchanged(x: Shifted, *_: Any, **named: Any) -> Shifted:
    """Return the input: dropout does nothing in evaluation mode."""
    assert not named.get("training", False), "models are measured in evaluation"
    return x


@rule(torch.Tensor.unsqueeze, torch.unsqueeze)
def unsqueeze(x: Shifted, dim: int) -> Shifted:
    """Insert an axis after the rows."""
    return Shifted(x.clean.unsqueeze(dim), x.difference.unsqueeze(axis_behind(dim)))


@rule(torch.Tensor.expand)
def expand(x: Shifted, *sizes: Any) -> Shifted:
    """Expand along axes after the rows."""
    _, *rest = _sizes(sizes)
    return Shifted(x.clean.expand(-1, *rest), x.difference.expand(-1, -1, *rest))


@rule(torch.Tensor.__getitem__)
def getitem(x: Shifted, index: Any) -> Shifted:
    """Index the axes after the rows; an index into the rows would mix points."""
    index = index if isinstance(index, tuple) else (index,)
    whole = index[0] is Ellipsis or index[0] == slice(None)
    if not whole:
        raise no_rule("an index into the rows")
    behind = index if index[0] is Ellipsis else (slice(None), *index)
    return Shifted(x.clean[index], x.difference[behind])


def _divide(name: str) -> None:
    def divided(x: Shifted, size: Any, dim: int = 0) -> tuple[Shifted, ...]:
        clean = getattr(x.clean, name)(size, dim)
        return tuple(map(Shifted, clean, getattr(x.difference, name)(size, axis_behind(dim))))

    rule(getattr(torch.Tensor, name), getattr(torch, name))(divided)


_divide("split")
_divide("chunk")


class CleanPrefix(Shifted):
    """Keys or values of which only the last positions are perturbed; the earlier ones come from the clean KV cache.

    The prefix is stored once for all points. A rule that does not know this class sees a difference of zero there.
    """

    def __init__(self, clean: Tensor, tail: Tensor) -> None:
        self.clean = clean
        self.tail = tail

    @cached_property
    def difference(self) -> Tensor:  # type: ignore[override]
        """The difference, with zeros at the positions of the prefix."""
        points, *rest = self.tail.shape
        prefix = self.clean.shape[-2] - rest[-2]
        zeros = self.tail.new_zeros(1).expand(points, *rest[:-2], prefix, rest[-1])
        return torch.cat([zeros, self.tail], -2)

    @property
    def points(self) -> int:
        """How many points share the clean value."""
        return self.tail.shape[0]


@rule(torch.cat)
def cat(tensors: Sequence[Any], dim: int = 0) -> Shifted:
    """Concatenate; ordinary tensors have difference zero."""
    first, last = tensors[0], tensors[-1]
    like = next(one for one in tensors if isinstance(one, Shifted))
    if len(tensors) == 2 and not isinstance(first, Shifted) and dim in (-2, like.ndim - 2) and first.numel():
        clean = once(torch.cat, [clean_rows(first, like), like.clean], -2)
        return CleanPrefix(clean, last.difference)
    pairs = [_as_shifted(one, like) for one in tensors]
    clean = once(torch.cat, [one.clean for one in pairs], dim)
    return Shifted(clean, torch.cat([one.difference for one in pairs], axis_behind(dim)))


def _as_shifted(value: Tensor, like: Shifted) -> Shifted:
    if isinstance(value, Shifted):
        return value
    clean = clean_rows(value, like)
    return Shifted(clean, clean.new_zeros(1).expand(like.points, *clean.shape))
