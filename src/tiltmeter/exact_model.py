"""A model whose small changes keep their digits: they are carried through it (`tiltmeter.differences`)."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.differences import Shifted
from tiltmeter.hooks import captured, replaced
from tiltmeter.model import CleanRun, LateRun, SplitModel, skipped


class ExactModel(SplitModel):
    """As a `SplitModel`, but changes are never taken of two runs."""

    @torch.no_grad()
    def changes(self, clean: CleanRun, change: Float[Tensor, "point batch span d_site"]) -> LateRun:
        """How far what is read after the site moves where the activations there move by `change`.

        Raises:
            TiltmeterError: the model uses an operation that has no difference rule.
        """
        moved = Shifted(clean.span.cut(clean.activation), change)
        with ExitStack() as stack:
            stack.enter_context(skipped(self.anatomy.blocks, range(clean.site.boundary)))
            stack.enter_context(replaced(*self._stream_tap(clean.site.boundary), clean.entry))
            stack.enter_context(replaced(*self.tap(clean.site), moved))
            found = {s: stack.enter_context(captured(*self.tap(s))) for s in clean.late.sites}
            final = self._suffix(clean, clean.entry, 1)
        sites = {s: self.centre(_difference(values[0], len(change)), s) for s, values in found.items()}
        return LateRun(_difference(final, len(change)), sites)

    def logit_changes(
        self,
        final: Float[Tensor, "token d_model"],
        logits: Float[Tensor, "token vocabulary"],
        change: Float[Tensor, "token d_model"],
    ) -> Float[Tensor, "token vocabulary"]:
        """By the rules, soft-cap and scaling included."""
        if self.head_is_linear:
            return self.logits(change)
        return _difference(self._head(Shifted(final[None], change[None, None]), final[None]), 1)[0, 0]


def _difference(value: Tensor, points: int) -> Tensor:
    """What a value moved; nothing, where nothing that was done reached it."""
    if isinstance(value, Shifted):
        return value.difference
    return torch.zeros_like(value).expand(points, *value.shape)
