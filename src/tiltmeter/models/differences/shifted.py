"""The number: a clean value, and the differences of many points from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError

Rule = Callable[..., Any]

RULES: dict[Any, Rule] = {}
"""What becomes of a shifted value in each of torch's functions."""


class Shifted(torch.Tensor):
    """Looks like a tensor of rows, those of all points one after the other; holds the clean rows once.

    The difference may be of a type with fewer digits than the clean value: it has no digits to lose to that.

    A model's own code runs on it unchanged: each of torch's functions is answered by a rule. Without points it has the
    shape of the clean value: a clean run that is recorded.
    """

    clean: Float[Tensor, "row *rest"]
    difference: Float[Tensor, "point row *rest"]
    perturbed: Float[Tensor, "point row *rest"] | None = None
    """Their sum, where it is known to more digits than adding them gives: a mean of squares, which may be near zero."""

    @staticmethod
    def __new__(cls: type[Shifted], clean: Tensor, difference: Tensor, perturbed: Tensor | None = None) -> Shifted:
        """A tensor without numbers of its own, of the shape of all points' rows."""
        shape = (max(1, difference.shape[0]) * clean.shape[0], *clean.shape[1:])
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=clean.dtype, device=difference.device)

    def __init__(self, clean: Tensor, difference: Tensor, perturbed: Tensor | None = None) -> None:
        self.perturbed = perturbed
        expected = (difference.shape[0], *clean.shape)
        self.clean = clean
        self.difference = difference if difference.shape == expected else difference.expand(expected)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """Shapes alone."""
        return f"Shifted({tuple(self.clean.shape)}, {self.points} points)"

    @property
    def points(self) -> int:
        """How many points share the clean value."""
        return self.difference.shape[0]

    def value(self) -> Float[Tensor, "rows *rest"]:
        """Clean value plus difference, as an ordinary tensor: the digits that they share hide the difference."""
        return (self.clean + self.difference).flatten(0, 1)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Apply the rule.

        Raises:
            TiltmeterError: there is none.
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
        """Nothing below torch's functions may touch it: it holds no numbers of its own.

        Raises:
            TiltmeterError: always.
        """
        raise no_rule(str(func))


def no_rule(name: str) -> TiltmeterError:
    """What is said of an operation that cannot be followed."""
    return TiltmeterError(
        f"There is no difference rule for {name}, which this model uses; measure it with --precision float32."
    )


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Register what these functions of torch do to shifted values."""

    def register(own: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, own))
        return own

    return register


def clean_and_difference(value: Any, like: Shifted) -> tuple[Any, Any]:
    """The clean value and the difference; of what is not shifted, itself and None.

    Raises:
        TiltmeterError: an ordinary tensor differs from point to point, so that it is no clean value.
    """
    if isinstance(value, Shifted):
        return value.clean, value.difference
    return clean_rows(value, like), None


def clean_rows(value: Any, like: Shifted) -> Any:
    """An ordinary tensor that has a row for each point's rows: those of the first point, which all must share."""
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
"""What can be asked of it as of any tensor."""
