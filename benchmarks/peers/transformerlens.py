"""TransformerLens: hooks on the whole model, or a run that starts at the layer with frozen keys and values."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformers import AutoTokenizer, GPT2LMHeadModel

from benchmarks.peers.peer import Clean, Output, RowChange
from benchmarks.workloads import Workload
from tiltmeter.models.model_files import EMBEDDED


def hooked_transformer(hf: GPT2LMHeadModel) -> Any:
    """A HookedTransformer of these weights with its default weight processing, made without network access."""
    from transformer_lens import HookedTransformer
    from transformer_lens.loading_from_pretrained import get_pretrained_model_config
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    settings = hf.config.to_dict() | {"n_ctx": hf.config.n_positions, "architectures": ["GPT2LMHeadModel"]}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(settings))
        config = get_pretrained_model_config(folder, dtype=hf.dtype, device=str(hf.device))
        model = HookedTransformer(config)
    model.load_and_process_state_dict(convert_gpt2_weights(hf, config))
    return model.to(hf.device).eval()


def bridge(hf: GPT2LMHeadModel) -> Any:
    """TransformerBridge, TransformerLens 3's own wrapper of a Hugging Face model."""
    from transformer_lens.model_bridge import TransformerBridge

    # Without a tokenizer it would download one; nothing is tokenized here.
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["nano"])
    return TransformerBridge.boot_transformers("gpt2", hf_model=hf, tokenizer=tokenizer, device=str(hf.device))


class Hooks:
    """Plain use: `run_with_hooks`, as in the tutorials. It returns logits at every position."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"

    def computed(self, work: Workload) -> int:
        """Every position."""
        return work.tokens.shape[1]

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A forward pass of the whole model."""
        return Clean(tokens, self._run(tokens, work.read, []))

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """A forward pass of the whole model, with hooks."""
        tokens = clean.tokens.repeat(len(change) // len(clean.tokens), 1)
        return self._run(tokens, work.read, [(f"blocks.{layer}.hook_resid_pre", partial(_add, change))])

    def _run(self, tokens: Tensor, read: range, hooks: list[Any]) -> Output:
        seen: list[Tensor] = []
        look = (self.last, lambda value, hook: seen.append(value))
        logits = self.model.run_with_hooks(tokens, fwd_hooks=[*hooks, look])
        keep = slice(read.start, read.stop)
        return Output(seen[0][:, keep], logits[:, keep])


def _add(change: Tensor, value: Tensor, hook: Any) -> Tensor:
    return value + change


class FromLayer:
    """Expert use: `start_at_layer`, frozen keys and values before the first perturbed position, no later tokens."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"

    def computed(self, work: Workload) -> int:
        """The positions from the first perturbed one to the last that is read."""
        return len(work.read)

    def clean(self, tokens: Int[Tensor, "batch position"], work: Workload) -> Clean:
        """A forward pass that keeps each layer's input, keys and values."""
        logits, cache = self.model.run_with_cache(tokens[:, : work.read.stop], names_filter=_kept)
        keep = slice(work.read.start, work.read.stop)
        return Clean(tokens, Output(cache[self.last][:, keep], logits[:, keep]), cache)

    def perturbed(self, clean: Clean, work: Workload, layer: int, change: RowChange) -> Output:
        """Run the layers from the perturbed one on."""
        begin, stop = work.read.start, work.read.stop
        copies = len(change) // len(clean.tokens)
        stream = clean.kept[f"blocks.{layer}.hook_resid_pre"]
        seen: list[Tensor] = []
        logits = self.model.run_with_hooks(
            stream[:, begin:].repeat(copies, 1, 1) + change[:, begin:stop],
            start_at_layer=layer,
            past_kv_cache=_frozen(self.model, clean.kept, begin, copies) if begin else None,
            fwd_hooks=[(self.last, lambda value, hook: seen.append(value))],
        )
        return Output(seen[0], logits)


def _kept(name: str) -> bool:
    return name.endswith(("hook_resid_pre", "hook_resid_post", "attn.hook_k", "attn.hook_v"))


def _frozen(model: Any, cache: Any, length: int, copies: int) -> Any:
    from transformer_lens import TransformerLensKeyValueCache

    frozen = TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, copies * cache["k", 0].shape[0])
    for layer, entry in enumerate(frozen.entries):
        entry.past_keys = cache["k", layer][:, :length].repeat(copies, 1, 1, 1)
        entry.past_values = cache["v", layer][:, :length].repeat(copies, 1, 1, 1)
    frozen.freeze()
    return frozen
