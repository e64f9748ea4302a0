"""Hugging Face transformers: hooks on the whole model, or by hand on the part that matters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache, GPT2LMHeadModel

from benchmarks.peers.peer import Clean, Output, RowChange
from benchmarks.workloads import Workload
from tiltmeter.models.hooks import captured


class Hooks:
    """A pre-hook that adds, a hook that looks on, and logits only where they are read."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model = model

    def computed(self, work: Workload) -> int:
        """All."""
        return work.tokens.shape[1]

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A full pass."""
        return Clean(tokens, self._run(tokens, work.read))

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """A full pass with hooks."""
        tokens = clean.tokens.repeat(len(change) // len(clean.tokens), 1)
        handle = self.model.transformer.h[layer].register_forward_pre_hook(
            lambda module, inputs: (inputs[0] + change, *inputs[1:])
        )
        try:
            return self._run(tokens, work.read)
        finally:
            handle.remove()

    def _run(self, tokens: Tensor, read: range) -> Output:
        keep = torch.tensor(read, device=tokens.device)
        with captured(self.model.transformer.h[-1], "output") as late:
            logits = self.model(tokens, use_cache=False, logits_to_keep=keep).logits
        return Output(late[0][:, keep], logits)


@dataclass(frozen=True)
class Kept:
    """What an expert keeps of the clean run."""

    streams: tuple[Tensor, ...]
    """In front of each layer, and last after the final norm, up to the last position that is read."""
    cache: DynamicCache | None
    """Keys and values of the positions before the first that is moved."""


class ByHand:
    """Only the blocks after the site, only positions that can change and are read; earlier keys and values are kept."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model = model

    def computed(self, work: Workload) -> int:
        """From the first that is moved to the last that is read."""
        return len(work.read)

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A full pass that keeps the streams, and keys and values where they are of use."""
        cache = DynamicCache() if work.read.start else None
        with captured(self.model.transformer.h[-1], "output") as late:
            trunk = self.model.transformer(
                tokens[:, : work.read.stop],
                past_key_values=cache,
                use_cache=cache is not None,
                output_hidden_states=True,
            )
        read = slice(work.read.start, work.read.stop)
        logits = self.model.lm_head(trunk.last_hidden_state[:, read])
        return Clean(tokens, Output(late[0][:, read], logits), Kept(trunk.hidden_states, cache))

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """Block after block."""
        copies = len(change) // len(clean.tokens)
        kept: Kept = clean.kept
        begin, stop = work.read.start, work.read.stop
        x = kept.streams[layer][:, begin:].repeat(copies, 1, 1) + change[:, begin:stop]
        cache = None if kept.cache is None else _prefix(kept.cache, begin, layer, copies)
        seen = torch.ones(stop - begin, stop, dtype=torch.bool, device=x.device).tril(begin) if begin else None
        for block in self.model.transformer.h[layer:]:
            x = block(x, past_key_values=cache, attention_mask=seen, use_cache=cache is not None)
        return Output(x, self.model.lm_head(self.model.transformer.ln_f(x)))


def tf32(model: GPT2LMHeadModel) -> ByHand:
    """The same with a GPU's TensorFloat-32 products, which keep 11 bits of each factor."""
    torch.set_float32_matmul_precision("high")
    return ByHand(model)


class InBfloat16(ByHand):
    """The same with weights and activations in bfloat16; log-softmax in float32, as an expert takes it."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__(model.bfloat16())

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """In bfloat16."""
        found = super().clean(tokens, work)
        return Clean(tokens, _in_float32(found.output), found.kept)

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """In bfloat16."""
        return _in_float32(super().perturbed(clean, work, layer, change.bfloat16()))


def _in_float32(output: Output) -> Output:
    return Output(output.late.float(), output.logits.float())


def _prefix(cache: DynamicCache, length: int, layer: int, copies: int) -> DynamicCache:
    """Keys and values of the first tokens, for each point. Earlier layers' are not needed."""
    prefix = DynamicCache()
    for index, own in enumerate(cache.layers):
        times = copies if index >= layer else 1
        prefix.update(
            own.keys[:, :, :length].repeat(times, 1, 1, 1), own.values[:, :, :length].repeat(times, 1, 1, 1), index
        )
    return prefix
