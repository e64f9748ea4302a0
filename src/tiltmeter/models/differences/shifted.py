"""The type that carries differences: one clean value, and the differences of many points from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError

Rule = Callable[..., Any]

RULES: dict[Any, Rule] = {}
"""The difference rule of each torch function."""


class Shifted(torch.Tensor):
    """A tensor subclass that stands for the perturbed values of all points, and stores the clean value once.

    To the model it looks like a batch of all points' rows, so the model's own code runs on it unchanged:
    `__torch_function__` answers each torch function by its difference rule. The difference may have a lower-precision
    dtype than the clean value, because its rounding is relative to itself. With zero points it has the shape of the
    clean value; running a model on that records a tape.
    """

    clean: Float[Tensor, "row *rest"]
    difference: Float[Tensor, "point row *rest"]
    perturbed: Float[Tensor, "point row *rest"] | None = None
    """clean + difference, if known more accurately than by adding them: a mean of squares may come out near zero."""

    @staticmethod
    def __new__(cls: type[Shifted], clean: Tensor, difference: Tensor, perturbed: Tensor | None = None) -> Shifted:
        """Make a tensor without storage, of the shape of all points' rows."""
        shape = (max(1, difference.shape[0]) * clean.shape[0], *clean.shape[1:])
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=clean.dtype, device=difference.device)

    def __init__(self, clean: Tensor, difference: Tensor, perturbed: Tensor | None = None) -> None:
        self.perturbed = perturbed
        expected = (difference.shape[0], *clean.shape)
        self.clean = clean
        self.difference = difference if difference.shape == expected else difference.expand(expected)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """Show shapes only."""
        return f"Shifted({tuple(self.clean.shape)}, {self.points} points)"

    @property
    def points(self) -> int:
        """How many points share the clean value."""
        return self.difference.shape[0]

    def value(self) -> Float[Tensor, "rows *rest"]:
        """Clean value plus difference as an ordinary tensor, in which rounding hides small differences."""
        return (self.clean + self.difference).flatten(0, 1)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Apply the difference rule of a torch function.

        Raises:
            TiltmeterError: it has none.
        """
        if rule := RULES.get(func):
            return rule(*args, **(kwargs or {}))
        if func in _LOOKS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        raise no_rule(getattr(func, "__name__", str(func)))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse every operation that reaches the dispatcher without a rule: there is no storage to work on.

        Raises:
            TiltmeterError: always.
        """
        raise no_rule(str(func))


def no_rule(name: str) -> TiltmeterError:
    """The error for an operation that has no difference rule."""
    return TiltmeterError(
        f"There is no difference rule for {name}, which this model uses; measure it with --precision float32."
    )


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Register the difference rule of torch functions."""

    def register(own: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, own))
        return own

    return register


def clean_and_difference(value: Any, like: Shifted) -> tuple[Any, Any]:
    """Return the clean value and the difference; for an ordinary value, itself and None.

    Raises:
        TiltmeterError: an ordinary tensor differs between points, so there is no shared clean value.
    """
    if isinstance(value, Shifted):
        return value.clean, value.difference
    return clean_rows(value, like), None


def clean_rows(value: Any, like: Shifted) -> Any:
    """The rows of one point of an ordinary tensor that repeats them for each point, such as a mask."""
    rows, points = like.clean.shape[0], like.points
    if not isinstance(value, Tensor) or points <= 1 or value.ndim < like.ndim or value.shape[0] != rows * points:
        return value
    each = value.unflatten(0, (points, rows))
    if not torch.equal(each, each[:1].expand_as(each)):
        raise TiltmeterError("The model treats path points differently, so they share no clean value.")
    return each[0]


_LOOKS = {
    getattr(torch.Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "layout", "is_nested", "is_sparse")
} | {
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.numel,
    torch.Tensor.is_floating_point,
    torch.Tensor.is_contiguous,
    torch.Tensor.__len__,
    torch.is_floating_point,
    torch.numel,
}
"""Metadata that can be read as from any tensor."""
