"""Hugging Face transformers: hooks on the whole model, or only the necessary part of it by hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache, GPT2LMHeadModel

from benchmarks.peers.peer import Clean, Output, RowChange
from benchmarks.workloads import Workload
from tiltmeter.models.hooks import Place, captured


class Hooks:
    """Plain use: a pre-hook adds the perturbation, a hook reads the late layer; logits only where they are read."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model = model

    def computed(self, work: Workload) -> int:
        """Every position."""
        return work.tokens.shape[1]

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A forward pass of the whole model."""
        return Clean(tokens, self._run(tokens, work.read))

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """A forward pass of the whole model, with hooks."""
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
        with captured(Place(self.model.transformer.h[-1], "output")) as late:
            logits = self.model(tokens, use_cache=False, logits_to_keep=keep).logits
        return Output(late[0][:, keep], logits)


@dataclass(frozen=True)
class Kept:
    """What the expert version keeps of the clean run."""

    streams: tuple[Tensor, ...]
    """The input of each layer, then the output of the final norm, up to the last position that is read."""
    cache: DynamicCache | None
    """Keys and values of the positions before the first perturbed one; None if there are none."""


class ByHand:
    """Expert use: only the blocks after the site, at positions that can change and are read, with a key-value cache."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model = model

    def computed(self, work: Workload) -> int:
        """The positions from the first perturbed one to the last that is read."""
        return len(work.read)

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A forward pass that keeps each layer's input, and keys and values if positions before the perturbed exist."""
        cache = DynamicCache() if work.read.start else None
        with captured(Place(self.model.transformer.h[-1], "output")) as late:
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
        """Run the blocks from the perturbed layer on."""
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
    """Expert use with TensorFloat-32 products on a GPU, which round each factor to 11 bits."""
    torch.set_float32_matmul_precision("high")
    return ByHand(model)


class InBfloat16(ByHand):
    """Expert use with weights and activations in bfloat16; the log-softmax is in float32."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__(model.bfloat16())

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """The clean run in bfloat16; its output in float32."""
        found = super().clean(tokens, work)
        return Clean(tokens, _in_float32(found.output), found.kept)

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """The perturbed run in bfloat16; its output in float32."""
        return _in_float32(super().perturbed(clean, work, layer, change.bfloat16()))


def _in_float32(output: Output) -> Output:
    return Output(output.late.float(), output.logits.float())


def _prefix(cache: DynamicCache, length: int, layer: int, copies: int) -> DynamicCache:
    """Keys and values of the first `length` tokens, repeated for each point in the layers that run."""
    prefix = DynamicCache()
    for index, own in enumerate(cache.layers):
        times = copies if index >= layer else 1
        prefix.update(
            own.keys[:, :, :length].repeat(times, 1, 1, 1), own.values[:, :, :length].repeat(times, 1, 1, 1), index
        )
    return prefix
