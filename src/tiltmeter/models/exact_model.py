"""A model whose small changes keep their digits: they are carried through it (`tiltmeter.models.differences`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.activations import GELUTanh, NewGELUActivation

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.differences import Shifted, Tape, operand_precision
from tiltmeter.models.hooks import captured, replaced
from tiltmeter.models.positions import Span
from tiltmeter.models.sites import STREAM, Site
from tiltmeter.models.split_model import CleanRun, LateActivations, SplitModel, skipped


class ExactModel(SplitModel):
    """As a `SplitModel`, but changes are never taken of two runs."""

    def __init__(self, hf: PreTrainedModel, name: str = "model") -> None:
        super().__init__(hf, name)
        _name_activations(hf)

    @torch.no_grad()
    def changes(self, clean: CleanRun, change: Float[Tensor, "point batch span d_site"]) -> LateActivations:
        """How far what is read after the site moves where the activations there move by `change`.

        Raises:
            TiltmeterError: the model uses an operation that has no difference rule.
        """
        moved = Shifted(clean.span.cut(clean.activation), change)
        with operand_precision(self.rounding), self._playing(clean.tape, clean.site), ExitStack() as stack:
            stack.enter_context(skipped(self.parts.blocks, range(clean.site.boundary)))
            stack.enter_context(replaced(*self._stream_tap(clean.site.boundary), clean.entry))
            stack.enter_context(replaced(*self.tap(clean.site), moved))
            found = {s: stack.enter_context(captured(*self.tap(s))) for s in clean.late.sites}
            final = self._suffix(clean, clean.entry, 1)
        sites = {s: self.centre(_difference(values[0], len(change)), s) for s, values in found.items()}
        return LateActivations(_difference(final, len(change)), sites)

    def _clean_pass(
        self, tokens: Tensor, wanted: set[Site], span: Span, tape: Tape
    ) -> tuple[dict[Site, Tensor], Tensor, DynamicCache | None]:
        """Where everything is perturbed, what the perturbed runs need of clean values is recorded on the way."""
        first = min(wanted, key=lambda site: (site.boundary, site.kind not in STREAM))
        if span.first or first.kind not in STREAM:
            return super()._clean_pass(tokens, wanted, span, tape)
        start = self.activation(tokens, first)
        with self._playing(tape, first), ExitStack() as stack:
            stack.enter_context(skipped(self.parts.blocks, range(first.boundary)))
            moved = Shifted(start, start.new_empty(0, *start.shape))
            stack.enter_context(replaced(*self._stream_tap(first.boundary), moved))
            found = {s: stack.enter_context(captured(*self.tap(s))) for s in wanted}
            final = self._trunk(inputs_embeds=start, use_cache=False)
        return {s: _clean(values[0]) for s, values in found.items()}, _clean(final), None

    @contextmanager
    def _playing(self, tape: Tape, site: Site) -> Iterator[None]:
        """The tape, with a section for each block.

        One that is entered in its middle asks for less than the whole block does.
        """
        first, inside = site.boundary, site.kind not in STREAM
        parts = [*self.parts.blocks[first:], self.parts.final_norm]
        with tape.playing(), ExitStack() as stack:
            for index, part in enumerate(parts, start=first):
                section = (index, site.kind if inside and index == first else "whole")
                stack.callback(_on_entry(part, partial(tape.seek, section)))
            yield

    def _bent_changes(self, final: Tensor, logits: Tensor, change: Tensor) -> Tensor:
        """By the rules, soft-cap and scaling included."""
        return _difference(self._head(Shifted(final[None], change[None, None]), final[None]), 1)[0, 0]

    def obstacle(self) -> str | None:
        """Why differences cannot be carried through this model; None where they can."""
        tokens = torch.zeros(1, 3, dtype=torch.long)
        try:
            clean = self.start(tokens, Site(0, "resid_pre"), (), Span(1, 3))
            change = self.changes(clean, torch.ones_like(clean.span.cut(clean.activation))[None])
            final = clean.late.final[0]
            self.logit_changes(final, self.logits(final), change.final[0, 0])
        except Exception as error:  # a rule may meet arguments that it does not know, and end in any way
            return str(error) if isinstance(error, TiltmeterError) else f"{type(error).__name__}: {error}"
        return None


class RoundedModel(ExactModel):
    """The same with differences rounded to bfloat16 where they enter a product of matrices."""

    rounding = torch.bfloat16


def _name_activations(hf: PreTrainedModel) -> None:
    """Put torch's own GELU where transformers writes the same function out, so that one rule sees it."""
    for parent in hf.modules():
        for name, child in parent.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(parent, name, GELUTanh())


def _on_entry(module: nn.Module, call: Any) -> Any:
    """Call whenever the module is entered; gives what ends that."""
    return module.register_forward_pre_hook(lambda *_: call()).remove


def _clean(value: Tensor) -> Tensor:
    return value.clean if isinstance(value, Shifted) else value


def _difference(value: Tensor, points: int) -> Tensor:
    """What a value moved, in the clean value's type; nothing, where nothing that was done reached it."""
    if isinstance(value, Shifted):
        return value.difference.to(value.clean.dtype)
    return torch.zeros_like(value).expand(points, *value.shape)
