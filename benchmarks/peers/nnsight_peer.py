"""nnsight: a trace of the whole model, or one that skips the blocks before the site."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from benchmarks.peers.peer import Clean, Output, RowChange
from benchmarks.workloads import Workload


def wrapped(hf: GPT2LMHeadModel) -> Any:
    """Wrap the model as any module: nnsight's LanguageModel is deprecated."""
    from nnsight import NNsight

    return NNsight(hf)


class Trace:
    """Plain use: a trace sets a block's input and saves outputs; logits only where they are read."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def computed(self, work: Workload) -> int:
        """Every position."""
        return work.tokens.shape[1]

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A forward pass of the whole model."""
        keep = torch.tensor(work.read, device=tokens.device)
        model = self.model
        with model.trace(tokens, use_cache=False, logits_to_keep=keep):
            late = model.transformer.h[-1].output.save()
            logits = model.lm_head.output.save()
        return Clean(tokens, Output(late[:, keep], logits))

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """A forward pass of the whole model."""
        tokens = clean.tokens.repeat(len(change) // len(clean.tokens), 1)
        keep = torch.tensor(work.read, device=tokens.device)
        model = self.model
        with model.trace(tokens, use_cache=False, logits_to_keep=keep):
            block = model.transformer.h[layer]
            block.input = block.input + change
            late = model.transformer.h[-1].output.save()
            logits = model.lm_head.output.save()
        return Output(late[:, keep], logits)


class Skip:
    """Expert use: skips blocks before the site and tokens after the last that is read.

    Positions before the first perturbed one run again each time, because nnsight cannot reuse keys and values.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def computed(self, work: Workload) -> int:
        """The positions up to the last that is read."""
        return work.read.stop

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A forward pass that keeps each layer's input."""
        keep = torch.tensor(work.read, device=tokens.device)
        model, streams = self.model, []
        with model.trace(tokens[:, : work.read.stop], use_cache=False, logits_to_keep=keep):
            for block in model.transformer.h:
                streams.append(block.input.save())
            late = model.transformer.h[-1].output.save()
            logits = model.lm_head.output.save()
        return Clean(tokens, Output(late[:, keep], logits), streams)

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """Run the blocks from the perturbed layer on."""
        copies = len(change) // len(clean.tokens)
        tokens = clean.tokens[:, : work.read.stop].repeat(copies, 1)
        x = clean.kept[layer].repeat(copies, 1, 1) + change[:, : work.read.stop]
        keep = torch.tensor(work.read, device=tokens.device)
        model = self.model
        with model.trace(tokens, use_cache=False, logits_to_keep=keep):
            for block in model.transformer.h[:layer]:
                block.skip(x)
            model.transformer.h[layer].input = x
            late = model.transformer.h[-1].output.save()
            logits = model.lm_head.output.save()
        return Output(late[:, keep], logits)
