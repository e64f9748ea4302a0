"""TransformerLens's HookedTransformer, put back into a model of transformers that computes the same.

TransformerLens keeps weights by head, and may have folded and centred them; each step is undone or carried exactly:

| TransformerLens | model of transformers |
|---|---|
| weights of norms folded into what reads them | norms with weight 1 and bias 0 |
| weights that write to the stream, centred | as they are: LayerNorm removes the mean |
| value biases folded into the output's bias | as they are |
| biases where the class has none: output projections, unembedding | added to the linear layer |
| the gated MLP's inner bias, added before the output matrix | that matrix times it, added to the output's bias |

Nothing of TransformerLens is imported. What its configuration says is looked up here; whether both models compute the
same is tried in `objects`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from tiltmeter.errors import TiltmeterError

ACTIVATIONS = frozenset({"relu", "relu2", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu"})
"""Activation functions that transformers has under the same names."""

PLAIN: Mapping[str, object] = {
    "attention_dir": "causal",
    "attn_only": False,
    "num_experts": None,
    "post_embedding_ln": False,
    "use_attention_sinks": False,
    "clip_qkv": None,
    "use_logn_attn": False,
    "use_dynamic_ntk_rope": False,
    "use_yarn_rope": False,
    "rotary_scaling_factor": 1.0,
    "rotary_adjacent_pairs": False,
    "rotary_base_local": None,
    "load_in_4bit": False,
}
"""Settings that the families below have at these values alone."""


@dataclass(frozen=True)
class Hooked:
    """A HookedTransformer's configuration and weights; weights that were folded away are None."""

    cfg: Any
    weights: Mapping[str, Tensor]

    def block(self, layer: int, name: str) -> Tensor | None:
        """A weight of a block by its name there."""
        return self.weights.get(f"blocks.{layer}.{name}")

    def projection(self, layer: int, letter: str) -> tuple[Tensor, Tensor]:
        """Weight [head * d_head, d_model] and bias of Q, K or V; K and V of grouped queries have fewer heads."""
        grouped = "_" if self.block(layer, f"attn._W_{letter}") is not None else ""
        weight, bias = (self.weights[f"blocks.{layer}.attn.{grouped}{kind}_{letter}"] for kind in "Wb")
        return weight.transpose(1, 2).flatten(0, 1), bias.flatten()

    def output(self, layer: int) -> tuple[Tensor, Tensor]:
        """Weight [d_model, head * d_head] and bias of the output projection of attention."""
        return self.weights[f"blocks.{layer}.attn.W_O"].flatten(0, 1).T, self.weights[f"blocks.{layer}.attn.b_O"]

    def mlp(self, layer: int, which: str) -> tuple[Tensor, Tensor]:
        """Weight [out, in] and bias of the MLP's matrix `in` or `out`."""
        return self.weights[f"blocks.{layer}.mlp.W_{which}"].T, self.weights[f"blocks.{layer}.mlp.b_{which}"]


def to_transformers(given: Any, name: str) -> PreTrainedModel:
    """A model of transformers with a HookedTransformer's weights, which are copied, in their type and on their device.

    Raises:
        TiltmeterError: its architecture is none of `FAMILIES`, or it has a setting that they do not have.
    """
    cfg = given.cfg
    for setting, plain in PLAIN.items():
        if (found := getattr(cfg, setting, plain)) != plain:
            raise _refused(name, f"has {setting}={found!r}")
    if cfg.act_fn not in ACTIVATIONS:
        raise _refused(name, f"has the activation function {cfg.act_fn!r}")
    if getattr(cfg, "d_vocab_out", cfg.d_vocab) != cfg.d_vocab:
        raise _refused(name, f"reads {cfg.d_vocab} tokens and predicts {cfg.d_vocab_out}")
    family = FAMILIES.get(cfg.original_architecture or "") or STRUCTURES.get(_structure(cfg))
    if family is None:
        raise _refused(name, f"is a {cfg.original_architecture or ' '.join(map(str, _structure(cfg)))}")
    hooked = Hooked(cfg, {key: value.detach() for key, value in given.state_dict().items()})
    settings, fill = family
    with torch.random.fork_rng(devices=[]), no_init_weights():
        hf = _empty(settings(cfg, _common(cfg, given.tokenizer)), hooked.weights["embed.W_E"])
    fill(hooked, hf)
    if unfilled := [key for key, weight in hf.named_parameters() if bool(weight.isnan().any())]:
        raise _refused(name, f"has no numbers for {unfilled[0]}")
    return hf.eval().requires_grad_(False)


def _refused(name: str, why: str) -> TiltmeterError:
    return TiltmeterError(
        f"{name} is a HookedTransformer that {why}, and cannot be put back into a model of transformers (families: "
        f"{', '.join(FAMILIES)}); give the model of transformers that it was made from."
    )


def _structure(cfg: Any) -> tuple[str, str, str]:
    """How a model without a named architecture is built."""
    norm = str(cfg.normalization_type).removesuffix("Pre")
    return cfg.positional_embedding_type, norm, "gated" if cfg.gated_mlp else "plain"


def _empty(config: PretrainedConfig, like: Tensor) -> PreTrainedModel:
    """The model of a configuration, all of its weights NaN."""
    hf = transformers.AutoModelForCausalLM.from_config(config, dtype=like.dtype).to(like.device)
    for weight in hf.parameters():
        weight.data.fill_(math.nan)
    return hf


def _common(cfg: Any, tokenizer: Any) -> dict[str, Any]:
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos")}
    return {"vocab_size": cfg.d_vocab, "tie_word_embeddings": False, "pad_token_id": None, **special}


def _put(module: nn.Module, weight: Tensor | None, bias: Tensor | None = None) -> None:
    """Copy weight and bias into a module: 1 and 0 where they are None, a new bias where its class has none.

    Raises:
        TiltmeterError: the weight has another shape than the module's.
    """
    place: Tensor = module.weight  # type: ignore[assignment]
    weight = torch.ones_like(place) if weight is None else weight
    if weight.shape != place.shape:
        raise TiltmeterError(
            f"A weight of the HookedTransformer has shape {tuple(weight.shape)} where {type(module).__name__} has "
            f"{tuple(place.shape)}; give the model of transformers that it was made from."
        )
    module.weight = nn.Parameter(weight.to(place, copy=True).contiguous())
    own: Any = getattr(module, "bias", None)
    bias = torch.zeros_like(own) if bias is None and own is not None else bias
    if bias is not None and (own is not None or bool(bias.any())):
        module.bias = nn.Parameter(bias.to(place, copy=True).contiguous())


def _put_ends(hooked: Hooked, hf: PreTrainedModel, final_norm: nn.Module) -> None:
    """Embedding, final norm and unembedding."""
    weights = hooked.weights
    _put(hf.get_input_embeddings(), weights["embed.W_E"])
    _put(final_norm, weights.get("ln_final.w"), weights.get("ln_final.b"))
    _put(hf.get_output_embeddings(), weights["unembed.W_U"].T, weights["unembed.b_U"])


def _gpt2_config(cfg: Any, common: dict[str, Any]) -> PretrainedConfig:
    return transformers.GPT2Config(
        n_embd=cfg.d_model,
        n_head=cfg.n_heads,
        n_layer=cfg.n_layers,
        n_positions=cfg.n_ctx,
        n_inner=cfg.d_mlp,
        activation_function=cfg.act_fn,
        layer_norm_epsilon=cfg.eps,
        scale_attn_weights=cfg.use_attn_scale,
        scale_attn_by_inverse_layer_idx=cfg.scale_attn_by_inverse_layer_idx,
        **common,
    )


def _fill_gpt2(hooked: Hooked, hf: Any) -> None:
    _put_ends(hooked, hf, hf.transformer.ln_f)
    _put(hf.transformer.wpe, hooked.weights["pos_embed.W_pos"])
    for layer, block in enumerate(hf.transformer.h):
        parts = [hooked.projection(layer, letter) for letter in "QKV"]
        weight, bias = hooked.output(layer)
        _put(block.attn.c_attn, torch.cat([one for one, _ in parts]).T, torch.cat([one for _, one in parts]))
        _put(block.attn.c_proj, weight.T, bias)  # GPT-2 keeps matrices as [in, out]
        for which, module in (("in", block.mlp.c_fc), ("out", block.mlp.c_proj)):
            weight, bias = hooked.mlp(layer, which)
            _put(module, weight.T, bias)
        _put(block.ln_1, hooked.block(layer, "ln1.w"), hooked.block(layer, "ln1.b"))
        _put(block.ln_2, hooked.block(layer, "ln2.w"), hooked.block(layer, "ln2.b"))


def _neox_config(cfg: Any, common: dict[str, Any]) -> PretrainedConfig:
    return transformers.GPTNeoXConfig(
        hidden_size=cfg.d_model,
        intermediate_size=cfg.d_mlp,
        num_hidden_layers=cfg.n_layers,
        num_attention_heads=cfg.n_heads,
        max_position_embeddings=cfg.n_ctx,
        hidden_act=cfg.act_fn,
        layer_norm_eps=cfg.eps,
        use_parallel_residual=cfg.parallel_attn_mlp,
        rope_parameters=_rotary(cfg) | {"partial_rotary_factor": cfg.rotary_dim / cfg.d_head},
        **common,
    )


def _fill_neox(hooked: Hooked, hf: Any) -> None:
    _put_ends(hooked, hf, hf.gpt_neox.final_layer_norm)
    heads = hooked.cfg.n_heads
    for layer, block in enumerate(hf.gpt_neox.layers):
        parts = [hooked.projection(layer, letter) for letter in "QKV"]  # kept head by head: q, k, v of each
        weight = torch.stack([one.unflatten(0, (heads, -1)) for one, _ in parts], 1).flatten(0, 2)
        bias = torch.stack([one.unflatten(0, (heads, -1)) for _, one in parts], 1).flatten()
        _put(block.attention.query_key_value, weight, bias)
        _put(block.attention.dense, *hooked.output(layer))
        _put(block.mlp.dense_h_to_4h, *hooked.mlp(layer, "in"))
        _put(block.mlp.dense_4h_to_h, *hooked.mlp(layer, "out"))
        _put(block.input_layernorm, hooked.block(layer, "ln1.w"), hooked.block(layer, "ln1.b"))
        _put(block.post_attention_layernorm, hooked.block(layer, "ln2.w"), hooked.block(layer, "ln2.b"))


def _rotary(cfg: Any) -> dict[str, Any]:
    """Rotary angles, with the frequencies scaled by parts where Llama 3 scales them."""
    found = {"rope_type": "default", "rope_theta": float(cfg.rotary_base)}
    if not getattr(cfg, "use_NTK_by_parts_rope", False):
        return found
    return found | {
        "rope_type": "llama3",
        "factor": cfg.NTK_by_parts_factor,
        "low_freq_factor": cfg.NTK_by_parts_low_freq_factor,
        "high_freq_factor": cfg.NTK_by_parts_high_freq_factor,
        "original_max_position_embeddings": cfg.NTK_original_ctx_len,
    }


def _llama_like(cfg: Any, common: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": cfg.d_model,
        "intermediate_size": cfg.d_mlp,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_key_value_heads or cfg.n_heads,
        "head_dim": cfg.d_head,
        "hidden_act": cfg.act_fn,
        "max_position_embeddings": cfg.n_ctx,
        "rms_norm_eps": cfg.eps,
        "rope_parameters": _rotary(cfg),
        **common,
    }


def _llama_config(cfg: Any, common: dict[str, Any]) -> PretrainedConfig:
    """Llama, or Mistral where every layer attends to a window."""
    if cfg.use_local_attn:
        return transformers.MistralConfig(**_llama_like(cfg, common), sliding_window=cfg.window_size)
    return transformers.LlamaConfig(**_llama_like(cfg, common))


def _qwen2_config(cfg: Any, common: dict[str, Any]) -> PretrainedConfig:
    return transformers.Qwen2Config(**_llama_like(cfg, common), use_sliding_window=False)


def _qwen3_config(cfg: Any, common: dict[str, Any]) -> PretrainedConfig:
    return transformers.Qwen3Config(**_llama_like(cfg, common), use_sliding_window=False)


def _gemma_config(cfg: Any, common: dict[str, Any]) -> PretrainedConfig:
    return transformers.GemmaConfig(**_llama_like(cfg, common))


def _gemma2_config(cfg: Any, common: dict[str, Any]) -> PretrainedConfig:
    kinds = {"local": "sliding_attention", "global": "full_attention"}
    return transformers.Gemma2Config(
        **_llama_like(cfg, common),
        hidden_activation=cfg.act_fn,
        layer_types=[kinds[kind] for kind in cfg.attn_types],
        sliding_window=cfg.window_size,
        query_pre_attn_scalar=round(cfg.attn_scale**2),
        attn_logit_softcapping=cfg.attn_scores_soft_cap if cfg.attn_scores_soft_cap > 0 else None,
        final_logit_softcapping=cfg.output_logits_soft_cap if cfg.output_logits_soft_cap > 0 else None,
    )


def _fill_llama(hooked: Hooked, hf: Any) -> None:
    _put_ends(hooked, hf, hf.model.norm)
    for layer, block in enumerate(hf.model.layers):
        _fill_gated(hooked, layer, block)
        _put(block.input_layernorm, hooked.block(layer, "ln1.w"))
        _put(block.post_attention_layernorm, hooked.block(layer, "ln2.w"))


def _fill_gated(hooked: Hooked, layer: int, block: Any) -> None:
    """Attention and MLP of a block of Llama or one of its descendants."""
    attention, mlp = block.self_attn, block.mlp
    for letter, module in zip("QKV", (attention.q_proj, attention.k_proj, attention.v_proj), strict=True):
        _put(module, *hooked.projection(layer, letter))
    _put(attention.o_proj, *hooked.output(layer))
    if hasattr(attention, "q_norm"):
        _put(attention.q_norm, hooked.block(layer, "attn.q_norm.w"))
        _put(attention.k_norm, hooked.block(layer, "attn.k_norm.w"))
    (up, inner), (down, outer) = hooked.mlp(layer, "in"), hooked.mlp(layer, "out")
    _put(mlp.gate_proj, hooked.weights[f"blocks.{layer}.mlp.W_gate"].T)
    _put(mlp.up_proj, up)
    _put(mlp.down_proj, down, outer + down @ inner)  # TransformerLens adds the inner bias to the gated product


GEMMA_NORMS = {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"}
GEMMA2_NORMS = {
    "input_layernorm": "ln1",
    "post_attention_layernorm": "ln1_post",
    "pre_feedforward_layernorm": "ln2",
    "post_feedforward_layernorm": "ln2_post",
}
"""What TransformerLens calls the norms of a block."""


def _fill_gemma(hooked: Hooked, hf: Any) -> None:
    """Gemma multiplies embeddings by √d_model and norms by 1 + weight; TransformerLens has both in the weights."""
    norms = GEMMA2_NORMS if hasattr(hf.model.layers[0], "pre_feedforward_layernorm") else GEMMA_NORMS
    _put_ends(hooked, hf, hf.model.norm)
    hf.get_input_embeddings().weight.data /= hooked.cfg.d_model**0.5
    hf.model.norm.weight.data -= 1
    for layer, block in enumerate(hf.model.layers):
        _fill_gated(hooked, layer, block)
        for ours, theirs in norms.items():
            norm = getattr(block, ours)
            _put(norm, hooked.block(layer, f"{theirs}.w"))
            norm.weight.data -= 1


Family = tuple[Callable[[Any, dict[str, Any]], PretrainedConfig], Callable[[Hooked, Any], None]]
"""How a configuration is made, and how the model is filled with weights."""

FAMILIES: Mapping[str, Family] = {
    "GPT2LMHeadModel": (_gpt2_config, _fill_gpt2),
    "GPTNeoXForCausalLM": (_neox_config, _fill_neox),
    "LlamaForCausalLM": (_llama_config, _fill_llama),
    "MistralForCausalLM": (_llama_config, _fill_llama),
    "Qwen2ForCausalLM": (_qwen2_config, _fill_llama),
    "Qwen3ForCausalLM": (_qwen3_config, _fill_llama),
    "GemmaForCausalLM": (_gemma_config, _fill_gemma),
    "Gemma2ForCausalLM": (_gemma2_config, _fill_gemma),
}
"""Architectures by the names that TransformerLens and transformers give them."""

STRUCTURES: Mapping[tuple[str, str, str], Family] = {
    ("standard", "LN", "plain"): FAMILIES["GPT2LMHeadModel"],
    ("rotary", "LN", "plain"): FAMILIES["GPTNeoXForCausalLM"],
    ("rotary", "RMS", "gated"): FAMILIES["LlamaForCausalLM"],
}
"""The same for models with a configuration of the user's own: positions, norm and MLP."""
