"""The trunk of a model: from token ids to final hidden states, and what can be done to it.

Which shortcuts a trunk allows is found by trying them on a few tokens, since families differ in it and do not say so.
"""

from __future__ import annotations

from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.architectures import ModelParts
from tiltmeter.models.failures import explained
from tiltmeter.models.hooks import Rankings, skipped
from tiltmeter.models.probe import probe_tokens

AGREEMENT = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 2e-2}
"""Largest distance between hidden states of two ways of running a model, relative to their norm, token by token.

Some families compute their norms in float32 whatever the precision.
"""

LENGTH_DEPENDENT = frozenset({"longrope", "dynamic"})
"""Kinds of rotary embedding whose angles depend on the length of the whole sequence."""

UNUSUAL = 13
"""A number of positions that is hardly a model's number of experts."""


class Trunk:
    """What a causal language model does before its head.

    Raises:
        TiltmeterError: earlier positions see later tokens, or other sequences of the batch, or two runs differ.
    """

    def __init__(self, hf: PreTrainedModel, parts: ModelParts, context: int) -> None:
        self.hf = hf
        self.parts = parts
        self.context = context
        self._refuse_what_depends_on_more()

    def __call__(self, ids: Tensor, **inputs: Any) -> Tensor:
        """Final hidden states [sequence, position, d_final] of token ids. Arguments it does not take are left out."""
        given = {"input_ids": ids.to(self.hf.device), "use_cache": False, **inputs}
        if self._accepted is not None:
            given = {name: value for name, value in given.items() if name in self._accepted}
        return self.parts.trunk(**given).last_hidden_state

    @cached_property
    def may_be_cut(self) -> bool:
        """Whether a sequence may be cut after the span: not where the computation depends on its length.

        Rotary angles can, and so does sparse attention that chooses the positions with the highest scores: of equal
        scores, `topk` chooses by the length of the row.
        """
        kinds = [getattr(module, "rope_type", ()) for module in self.hf.modules()]
        named = {kind for one in kinds for kind in (one.values() if isinstance(one, dict) else [one])}
        tokens = probe_tokens(self.hf)
        if named & LENGTH_DEPENDENT or self._chooses_positions:
            return False
        return agree(self._beginning(tokens), self._beginning(tokens[:, :5]))

    @cached_property
    def skips_later_blocks(self) -> bool:
        """Whether the model runs when its later blocks are skipped; each pass is compared with nothing, so try one."""
        every = range(len(self.parts.blocks))
        try:
            with (
                torch.no_grad(),
                explained(self.hf, "skipping its layers"),
                skipped(self.parts.blocks, every, self.parts.extras),
            ):
                self(probe_tokens(self.hf, 1, 1))
        except TiltmeterError:
            return False
        return True

    @property
    def _chooses_positions(self) -> bool:
        """Whether the model ranks as many numbers as there are positions."""
        positions = min(UNUSUAL, self.context)
        tokens = probe_tokens(self.hf, 1, positions)
        with explained(self.hf, "running it on a few tokens"), torch.no_grad(), Rankings() as rankings:
            self(tokens)
        return positions in rankings.sizes

    def _refuse_what_depends_on_more(self) -> None:
        """Refuse a model in which a token's output depends on more than this token and those before it.

        Raises:
            TiltmeterError: it does.
        """
        tokens, rounding, name = probe_tokens(self.hf), 30 * torch.finfo(self.hf.dtype).eps, type(self.hf).__name__
        whole = self._beginning(tokens)
        if not agree(whole, self._beginning(tokens), rounding):
            raise TiltmeterError(
                f"{name} gives two outputs for the same tokens, so what a perturbation changes cannot be told from "
                "noise; make it deterministic."
            )
        if not agree(whole[:1], self._beginning(tokens[:1])):
            raise TiltmeterError(
                f"{name} gives a sequence another output beside others than alone, so numbers would depend on the "
                "batch; let no hook or module combine sequences (statistics or quantisation over the batch)."
            )
        other = torch.cat([tokens[:, :5], tokens[:, 5:].flip(1)], 1)
        if not agree(whole, self._beginning(other), rounding):
            raise TiltmeterError(
                f"{name} is no decoder: later tokens change what earlier positions predict; choose a "
                "causal language model (a class like BERT's has is_decoder in its configuration)."
            )

    @torch.no_grad()
    def _beginning(self, ids: Tensor) -> Tensor:
        """The final hidden states of the first five tokens.

        Raises:
            TiltmeterError: the model fails.
        """
        with explained(self.hf, "running it on a few tokens"):
            return self(ids)[:, :5]

    @cached_property
    def _accepted(self) -> frozenset[str] | None:
        """The arguments that it takes; None if it takes any."""
        parameters = signature(type(self.parts.trunk).forward).parameters
        anything = any(one.kind == one.VAR_KEYWORD for one in parameters.values())
        return None if anything else frozenset(parameters)


def agree(whole: Tensor, found: Tensor, tolerance: float | None = None) -> bool:
    """Whether two computations of hidden states are equal, token by token, relative to their norm."""
    error = (found - whole).norm(dim=-1)
    allowed = AGREEMENT[whole.dtype] if tolerance is None else tolerance
    return not bool((error > allowed * whole.norm(dim=-1)).any())
