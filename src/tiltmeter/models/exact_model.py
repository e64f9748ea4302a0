"""A split model that carries exact differences through its layers (`tiltmeter.models.differences`).

A perturbation of relative size 1e-4 changes float32 logits in about their fourth digit; subtracting two runs leaves
three. `ExactModel` never subtracts two runs, so small changes, and KL, which is quadratic in them, keep their digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.activations import GELUTanh, NewGELUActivation

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun, LateActivations, Way
from tiltmeter.models.differences import Shifted, Tape, operand_precision
from tiltmeter.models.failures import explained, first_line
from tiltmeter.models.hooks import captured, replaced, skipped
from tiltmeter.models.positions import Span
from tiltmeter.models.probe import probe_tokens
from tiltmeter.models.sites import STREAM, Site
from tiltmeter.models.split_model import SplitModel

CARRIED_AGREEMENT = {None: 1e-2, torch.bfloat16: 0.2}
"""Largest distance of carried large differences from subtracted ones, relative to their norm, by the rounding."""

BEFORE_ATTENTION = ("q", "k", "v", "within")
"""Kinds of site in a block that are, or may be, before its attention."""


class ExactModel(SplitModel):
    """A `SplitModel` whose changes are carried through the layers instead of subtracted."""

    def __init__(self, hf: PreTrainedModel, name: str = "model") -> None:
        super().__init__(hf, name)
        _name_activations(hf)

    @torch.no_grad()
    def changes(self, clean: CleanRun, change: Float[Tensor, "point batch span d_site"]) -> LateActivations:
        """The changes of the activations after the site when the activation there changes by `change`.

        Raises:
            TiltmeterError: the model uses an operation that has no difference rule.
        """
        perturbed = Shifted(clean.frame, clean.widened(change))
        with (
            explained(self.hf, f"carrying differences through the layers after {clean.site.name}"),
            operand_precision(self.rounding),
            self._playing(clean.tape, clean.site),
            ExitStack() as stack,
        ):
            final, found = self._perturbed_pass(stack, clean, perturbed, 1)
        points = len(change)
        sites = {s: clean.narrowed(self.centre(_carried_change(value, points), s)) for s, value in found.items()}
        return LateActivations(clean.narrowed(_carried_change(final, points)), sites)

    def _entering(self, clean: CleanRun, x: Tensor, copies: int) -> Tensor:
        """As in `SplitModel`; before attention, with differences of zero.

        An attention reshapes queries, keys and values by the shape of its input, which must look as theirs do.
        """
        entry = super()._entering(clean, x, copies)
        if not isinstance(x, Shifted) or clean.site.kind not in BEFORE_ATTENTION:
            return entry
        return Shifted(entry, entry.new_zeros(x.points, *entry.shape))

    def _clean_pass(
        self, tokens: Tensor, wanted: set[Site], ways: Mapping[Site, Way], span: Span, tape: Tape
    ) -> tuple[dict[Site, Tensor], Tensor, DynamicCache | None]:
        """As in `SplitModel`; if all positions may be perturbed, record the tape on the way, saving a second pass."""
        first = min(wanted, key=lambda site: (site.boundary, site.kind not in STREAM))
        if span.first or first.kind not in STREAM or set(ways.values()) != {"layers"}:
            return super()._clean_pass(tokens, wanted, ways, span, tape)
        start = self.activation(tokens, first)
        with (
            explained(self.hf, "running the whole model"),
            self._playing(tape, first),
            ExitStack() as stack,
        ):
            stack.enter_context(skipped(self.parts.blocks, range(first.boundary), self.parts.extras))
            perturbed = Shifted(start, start.new_empty(0, *start.shape))
            stack.enter_context(replaced(self._stream_tap(first.boundary), perturbed))
            found = {s: stack.enter_context(captured(self.tap(s))) for s in wanted}
            final = self.trunk(tokens)
        return {s: _clean(values[0]) for s, values in found.items()}, _clean(final), None

    @contextmanager
    def _playing(self, tape: Tape, site: Site) -> Iterator[None]:
        """Play the tape, with a section for each block.

        A block entered at a site in its middle asks for fewer values, so it has a section of its own for that site.
        """
        first, inside = site.boundary, site.is_in_block
        parts = [*self.parts.blocks[first:]]
        if self.parts.final_norm is not None:
            parts.append(self.parts.final_norm)
        with tape.playing(), ExitStack() as stack:
            tape.seek(site)  # what is between the token ids and the first block
            for index, part in enumerate(parts, start=first):
                section = (index, site if inside and index == first else "whole")
                stack.callback(_on_entry(part, partial(tape.seek, section)))
            yield

    def _nonlinear_logit_changes(self, final: Tensor, logits: Tensor, change: Tensor) -> Tensor:
        """By the difference rules, which cover soft-cap and scaling."""
        return _carried_change(self.head.run(Shifted(final[None], change[None, None])), 1)[0, 0]

    def obstacle(self) -> str | None:
        """Why differences cannot be carried through this model, found by trying; None if they can."""
        try:
            for span in (Span(0, 8), Span(3, 8)):
                self._compare_ways(span)
        except Exception as error:  # a rule may fail in any way on arguments it does not know
            return str(error) if isinstance(error, TiltmeterError) else first_line(error)
        return None

    def _compare_ways(self, span: Span) -> None:
        """Carry two large differences of two rows through all layers and the head; compare with subtraction.

        Raises:
            TiltmeterError: they differ.
        """
        clean = self.start(probe_tokens(self.hf), Site(0, "resid_pre"), (), span)
        x = span.cut(clean.activation)
        change = torch.stack([0.5 * x.flip(-1), -0.3 * x.roll(1, -1)])
        carried, subtracted = self.changes(clean, change).final, self.resume(clean, x + change).final - clean.late.final
        final = clean.late.final[0]
        logits = self.logits(final)
        found = self.logit_changes(final, logits, carried[1, 0])
        wanted = self.logits(final + subtracted[1, 0]) - logits
        for one, other in ((carried, subtracted), (found, wanted)):
            error = (one - other).norm(dim=-1) / other.norm(dim=-1).clamp(min=1e-30)
            if bool((error > CARRIED_AGREEMENT[self.rounding]).any()):
                raise TiltmeterError(
                    f"differences carried through the layers of {type(self.hf).__name__} are off by "
                    f"{float(error.max()):.1e} of what two passes give; use --precision float32."
                )


class RoundedModel(ExactModel):
    """An `ExactModel` that rounds differences to bfloat16 before each matrix product.

    The error is relative to the difference, not to the activation (bfloat16 keeps 8 bits).
    """

    rounding = torch.bfloat16


def _name_activations(hf: PreTrainedModel) -> None:
    """Replace transformers' written-out tanh GELU by torch's, which has a difference rule as a whole."""
    for parent in hf.modules():
        for name, child in parent.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(parent, name, GELUTanh())


def _on_entry(module: nn.Module, call: Any) -> Any:
    """Call `call` whenever the module is entered; return what removes the hook."""
    return module.register_forward_pre_hook(lambda *_: call()).remove


def _clean(value: Tensor) -> Tensor:
    return value.clean if isinstance(value, Shifted) else value


def _carried_change(value: Tensor, points: int) -> Tensor:
    """The difference of a value in its own type; zeros if the perturbation did not reach it."""
    if isinstance(value, Shifted):
        return value.difference.to(value.clean.dtype)
    return torch.zeros_like(value).expand(points, *value.shape)
