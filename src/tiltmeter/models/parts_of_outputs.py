"""Parts of what enters or leaves a module: one head's columns, or what one head adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tiltmeter.models.differences import Shifted


@dataclass(frozen=True, eq=False)
class Columns:
    """Some of the columns."""

    which: Int[Tensor, " column"]

    def read(self, whole: Any, entered: Any) -> Any:
        """These columns."""
        if isinstance(whole, Shifted):
            return Shifted(whole.clean[..., self.which], whole.difference[..., self.which])
        return whole[..., self.which]

    def put(self, whole: Any, entered: Any, new: Any) -> Any:
        """All columns, these replaced; nothing has changed the others."""
        if not isinstance(new, Shifted):
            return whole.index_copy(-1, self.which, new)
        others = whole.clean if isinstance(whole, Shifted) else whole
        clean = others.index_copy(-1, self.which, new.clean)
        difference = new.difference.new_zeros(new.points, *clean.shape)
        return Shifted(clean, difference.index_copy(-1, self.which, new.difference))


@dataclass(frozen=True, eq=False)
class HeadResult:
    """What one head adds to the output of an attention's last matrix: its own columns of the input times the matrix."""

    matrix: nn.Module
    which: Int[Tensor, " column"]
    """The head's columns of the input."""

    def read(self, whole: Any, entered: Any) -> Any:
        """What the head adds, without the bias, which belongs to no head."""
        if isinstance(entered, Shifted):
            return Shifted(self._added(entered.clean), self._added(entered.difference))
        return self._added(entered)

    def put(self, whole: Any, entered: Any, new: Any) -> Any:
        """The output with another addend of the head."""
        own = self._added(entered)
        if isinstance(new, Shifted):
            return Shifted(whole + (new.clean - own), new.difference)
        return whole + (new - own)

    def _added(self, entered: Tensor) -> Tensor:
        rows = entered.flatten(0, -3)
        alone = torch.zeros_like(rows).index_copy(-1, self.which, rows[..., self.which])
        product = self.matrix.forward  # calls no hooks, among them the one that called this
        return (product(alone) - product(torch.zeros_like(rows[:1, :1]))).unflatten(0, entered.shape[:-2])
