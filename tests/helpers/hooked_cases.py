"""Small HookedTransformers with random weights of every family that is put back, as TransformerLens builds them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

WIDTH, HEADS, LAYERS, VOCABULARY, CONTEXT, WINDOW = 16, 2, 3, 61, 16, 4

ROTARY = {"positional_embedding_type": "rotary", "act_fn": "gelu", "normalization_type": "LN", "rotary_dim": 2}
GATED = {
    "positional_embedding_type": "rotary",
    "act_fn": "silu",
    "normalization_type": "RMS",
    "final_rms": True,
    "gated_mlp": True,
    "d_head": 6,
    "n_heads": 4,
    "n_key_value_heads": 2,
    "eps": 1e-6,
}
LOCAL = {"use_local_attn": True, "window_size": WINDOW}
GEMMA = GATED | {"act_fn": "gelu_pytorch_tanh"}

SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"act_fn": "gelu_new", "original_architecture": "GPT2LMHeadModel"},
    "gpt2-unscaled": {"act_fn": "relu", "use_attn_scale": False, "scale_attn_by_inverse_layer_idx": True},
    "pythia": ROTARY | {"parallel_attn_mlp": True, "original_architecture": "GPTNeoXForCausalLM"},
    "neox-sequential": ROTARY,
    "llama": GATED | {"original_architecture": "LlamaForCausalLM"},
    "llama3": GATED | {"use_NTK_by_parts_rope": True, "NTK_original_ctx_len": 8, "NTK_by_parts_factor": 4.0},
    "mistral": GATED | LOCAL | {"attn_types": ["local"] * LAYERS, "original_architecture": "MistralForCausalLM"},
    "qwen2": GATED | {"rotary_base": 1000, "original_architecture": "Qwen2ForCausalLM"},
    "qwen3": GATED | {"use_qk_norm": True, "original_architecture": "Qwen3ForCausalLM"},
    "gemma": GEMMA | {"original_architecture": "GemmaForCausalLM"},
    "gemma2": GEMMA
    | LOCAL
    | {
        "attn_types": ["local", "global", "local"],
        "attn_scale": 3.0,
        "attn_scores_soft_cap": 1.5,
        "output_logits_soft_cap": 4.0,
        "use_normalization_before_and_after": True,
        "original_architecture": "Gemma2ForCausalLM",
    },
}
"""Settings of each family beyond the sizes; those without an architecture are recognised by their structure."""


def hooked(family: str, processed: bool = True, dtype: torch.dtype = torch.float64, **others: Any) -> HookedTransformer:
    """A model in which every weight and bias matters, with TransformerLens's default processing or without."""
    sizes = {"d_model": WIDTH, "d_head": WIDTH // HEADS, "n_heads": HEADS, "n_layers": LAYERS, "d_mlp": 24}
    text = {"n_ctx": CONTEXT, "d_vocab": VOCABULARY, "dtype": dtype, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        config = HookedTransformerConfig(**(sizes | text | SETTINGS[family] | others))
        model, unprocessed = HookedTransformer(config), HookedTransformer(config)
    generator = torch.Generator().manual_seed(5)
    for name, weight in unprocessed.named_parameters():
        noise = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
        is_norm = "ln" in name.rpartition(".")[0] or "norm" in name
        weight.data.copy_(1 + 0.3 * noise if is_norm and name.endswith("w") else 0.4 * noise)
    if not processed:
        return unprocessed.eval().requires_grad_(False)
    model.load_and_process_state_dict(dict(unprocessed.state_dict()))
    return model.eval().requires_grad_(False)
