"""Tiny random models of the language-model classes of transformers: sizes, special settings, and building.

The sizes are given by the names that configurations have for them, whatever the family. A few ways of reading them are
tried in turn, until one makes a model that runs on text.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

VOCABULARY, WIDTH, LAYERS, LENGTH = 61, 32, 4, 12
"""Sizes of the tiny models and token batches."""

LARGEST = 30_000_000
"""Models with more parameters are not built: their configuration has sizes that are not known here."""

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("emb_dim", "embed_dim", "out_hidden_size", "text_hidden_size", "hidden_size_global"), WIDTH),
    **dict.fromkeys(("projection_dim", "image_token_embed_dim", "ple_embed_dim", "output_dim"), WIDTH),
    **dict.fromkeys(("projector_output_dim", "projector_hidden_size", "backbone_hidden_size"), WIDTH),
    **dict.fromkeys(("moe_hidden_size", "base_channels", "latent_channels", "adapter_out_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "depth"), LAYERS),
    **dict.fromkeys(("layers",), LAYERS),
    **dict.fromkeys(("encoder_layers", "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("kv_n_heads", "moe_top_k", "moe_topk", "top_k_experts", "zero_expert_num"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "dff", "ffn_hidden_size"), 64),
    **dict.fromkeys(("mlp_dim", "block_ff_dim", "expert_ffn_hidden_size", "feed_forward_size"), 64),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), 64),
    **dict.fromkeys(("intermediate_size_mlp", "projection_intermediate_size"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length"), 64),
    **dict.fromkeys(("head_dim", "d_head", "d_kv", "v_head_dim", "global_head_dim", "attention_head_size"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "lora_rank"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "rotary_dim", "mamba_d_head"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "mamba_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size", "time_step_rank", "mamba_dt_rank"), 16),
    **dict.fromkeys(("mamba_d_ssm",), 64),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "index_topk", "indexer_budget"), 4),
    **dict.fromkeys(("index_head_dim", "indexer_head_dim", "router_hidden_size", "gated_norm_rank"), 16),
    **dict.fromkeys(("index_kpool", "num_kv_shared_layers"), 2),
    **dict.fromkeys(("index_n_heads", "indexer_n_heads"), 16),  # with few, scores tie at zero, and ties have no order
    **dict.fromkeys(("indexer_kv_heads", "indexer_compress_ratio", "n_shared_experts", "num_expert_group"), 1),
    **dict.fromkeys(("hc_lowrank", "laurel_rank", "adapter_rank"), 8),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_n_groups", "first_k_dense_replace"), 1),
    **dict.fromkeys(("num_dense_layers",), 1),
    **dict.fromkeys(("vocab_size_per_layer_input", "encoder_hash_byte_group_vocab"), VOCABULARY),
    **dict.fromkeys(("ngram_vocab_size_base", "num_embeddings"), VOCABULARY),
    **dict.fromkeys(("make_ngram_vocab_size_divisible_by", "split_ngram_parts"), 1),
    **dict.fromkeys(("hidden_size_per_layer_input",), 8),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    **dict.fromkeys(("image_token_id", "image_token_index", "video_token_id"), VOCABULARY - 1),
    **dict.fromkeys(("vision_start_token_id", "vision_end_token_id", "audio_token_id"), VOCABULARY - 2),
    **{key: [0, 1] for key in ("deepstack_visual_indexes", "vision_feature_layer", "intermediate_layers_indices")},
    **{key: [1] for key in ("global_attn_indexes", "fullatt_block_indexes", "summary_idxs")},
    "channel_multiplier": [1],
    "codebook_size": 64,
    "deepstack_layer_map": [[0, 1]],
    "vocabulary_map": {"<image>": VOCABULARY - 1, "<|extra_200|>": VOCABULARY - 2},
    "image_size": 16,
    "patch_size": 8,
    "is_decoder": True,
    "causal": True,
}
"""Small sizes, by the names that configurations have for them."""

DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "depth", "layers")

ROTARY = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0, "mrope_section": [1, 1, 2]}
"""Rotary angles of heads of 8 numbers whose positions have three parts (time, height, width)."""

VISION = {"model_type": "clip_vision_model", "hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 4}
"""Stands for the vision models of a library that is not needed here (timm); none runs on text."""

SPECIAL: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]], "window_size": 4},
    "deepseek_v3": {"n_group": 2},
    "mpt": {"expansion_ratio": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1},
    "bamba": {"attn_layer_indices": [2]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "phi3": {"original_max_position_embeddings": 64},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"] * (LAYERS // 2)},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
        "rope_parameters": {"sliding_attention": ROTARY, "full_attention": None},
    },
    "dots3_note_text": {
        "head_dim": 16,
        **dict.fromkeys(("swa_num_attention_heads", "swa_num_key_value_heads"), 4),
        **dict.fromkeys(("swa_q_lora_rank", "swa_kv_lora_rank", "swa_head_dim"), 16),
        **dict.fromkeys(("swa_qk_nope_head_dim", "swa_v_head_dim", "swa_qk_rope_head_dim"), 8),
    },
    "dots3_note_vision_encoder": {
        "mlp_layer_types": ["dense"] * LAYERS,
        "adapter_in_dim": WIDTH,
        "per_layer_config": {},
    },
    "dots3_note_audio_encoder": {"adapter_input_size": WIDTH},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "granite4_vision": {"downsample_rate": "1/2", "vision_config": {"hidden_size": 64}},
    "muse_spark_audio": {"hidden_sizes": [WIDTH] * 4},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "fast_vlm": {"vision_config": VISION},
    "perception_lm": {"vision_config": VISION | {"model_args": {"embed_dim": WIDTH}}},
    "gemma4_text": {"num_kv_shared_layers": 2},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {"attn_layers": ["local"] * LAYERS, "axial_pos_embds": False, "local_attn_chunk_length": 4},
}
"""Settings of single families, where small sizes alone make no valid model."""


NOT_TEXT = {
    **dict.fromkeys(("musicgen", "musicgen_melody"), "reads four streams of sound codes at a time"),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "reads the states and keys of another model"),
}
"""Families that read something else than text, and do not say so when they are run on it."""


class NotTextError(Exception):
    """The model cannot be run on token ids alone."""


class NoDecoderError(Exception):
    """The model has an encoder beside its decoder."""


@dataclass(frozen=True)
class Reading:
    """One way to read the table of sizes."""

    mixed: bool = True
    """Whether lists with one entry per layer are shortened to hold each kind of layer."""
    without: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


READINGS = (
    Reading(),
    Reading(more={"rope_parameters": ROTARY}),
    Reading(more={"num_key_value_heads": 4}),
    Reading(without=("head_dim",)),
    Reading(mixed=False),
    Reading(mixed=False, without=("head_dim",)),
    Reading(mixed=False, without=("sliding_window", "head_dim")),
)


def families() -> dict[str, str]:
    """The model class of each family, by its type; a multimodal class is named beside its text half."""
    found = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for kind, name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items():
        found[kind if found.get(kind, name) == name else f"{kind} (image and text)"] = name
    return dict(sorted(found.items()))


def build(family: str, name: str) -> nn.Module:
    """A tiny random model in float32 that runs on text.

    Raises:
        NotTextError: it asks for more than text.
        NoDecoderError: it is an encoder with a decoder.
        ValueError: no reading of the sizes makes a model that runs; says why the first one does not.
    """
    kind = family.partition(" ")[0]
    if kind in NOT_TEXT:
        raise NotTextError(NOT_TEXT[kind])
    model_class = getattr(transformers, name)
    config_class = _config_class(kind, model_class)
    reasons = []
    for reading in READINGS:
        try:
            return _running(model_class, config_class(**_small(config_class, reading)))
        except (NotTextError, NoDecoderError):
            raise
        except Exception as error:
            reasons.append(short(error))
    raise ValueError(reasons[0])


def _running(model_class: Any, config: Any) -> nn.Module:
    """The random model, if it runs on text."""
    text = config.get_text_config()
    if text is not config and text.is_encoder_decoder:
        raise NoDecoderError
    model = _random(model_class, config)
    if getattr(
        model.config, "is_encoder_decoder", False
    ):  # some classes are the decoder alone, and say so once they are built
        raise NoDecoderError
    try:
        model(input_ids=tokens(), use_cache=False)
    except (TypeError, ValueError) as error:
        if any(told in str(error) for told in ("required positional argument", "pixel_values")):
            raise NotTextError(short(error)) from error
        raise
    return model


def tokens() -> Tensor:
    """A batch of two sequences of token ids, none of which has a special meaning."""
    return torch.randint(1, VOCABULARY - 2, (2, LENGTH), generator=torch.Generator().manual_seed(0))


def short(error: Exception) -> str:
    """One line about an error."""
    lines = str(error).strip().splitlines() or [""]
    told = lines[-1].strip() if "validation error" in lines[0] else lines[0]
    return f"{type(error).__name__}: {told}"[:110]


def _config_class(kind: str, model_class: Any) -> Any:
    """The configuration of a model class: that of a part, where the class is the text half of a multimodal one."""
    whole = CONFIG_MAPPING[kind]
    own = model_class.config_class
    return own if own in getattr(whole, "sub_configs", {}).values() else whole


def _small(config_class: Any, reading: Reading) -> dict[str, Any]:
    """The small sizes that a configuration has a setting for, those of its parts included."""
    special = SPECIAL.get(getattr(config_class, "model_type", ""), {})
    default = config_class()
    settings: dict[str, Any] = dict(_per_layer(default)) if reading.mixed else {}
    settings |= {
        key: copy.deepcopy(size)
        for key, size in SIZES.items()
        if key not in reading.without and key in vars(default) and _fits(size, vars(default)[key])
    }
    if "kv_lora_rank" in vars(default):  # latent attention: as many heads of keys as of queries
        settings["num_key_value_heads"] = SIZES["num_attention_heads"]
    for part in getattr(config_class, "sub_configs", {}):
        own = getattr(default, part, None)
        if own is not None:
            settings[part] = _small(type(own), reading) | _kind(own)
    settings |= {key: value for key, value in reading.more.items() if _may_have(default, key)}
    return _merged(settings, special)


def _merged(settings: dict, special: dict) -> dict:
    """Settings with special ones in their place, part by part."""
    both = {key: _merged(settings[key], value) for key, value in special.items() if isinstance(settings.get(key), dict)}
    return settings | special | both


def _fits(size: Any, value: Any) -> bool:
    """Whether a setting's default value is of the kind of a size: a number, a list or a dictionary.

    A size of zero stays: the family does without.
    """
    for kind in ((list, tuple), dict):
        if isinstance(size, kind) or isinstance(value, kind):
            return isinstance(size, kind) and (value is None or isinstance(value, kind))
    return value != 0 or isinstance(value, bool)


def _per_layer(default: Any) -> dict[str, list]:
    """Lists with one entry per layer, shortened; each kind of layer that the default has comes in turn."""
    depth = next((vars(default)[key] for key in DEPTHS if isinstance(vars(default).get(key), int)), 0)
    lists = {
        key: list(value)
        for key, value in vars(default).items()
        if isinstance(value, (list, tuple)) and len(value) == depth > LAYERS
    }
    return {key: _shortened(value, SIZES.get(key)) for key, value in lists.items()}


def _shortened(entries: list, size: Any) -> list:
    if entries == list(range(len(entries))):
        return entries[:LAYERS]
    kinds = [size] if size is not None else [one for i, one in enumerate(entries) if one not in entries[:i]]
    return [kinds[i % len(kinds)] for i in range(LAYERS)]


def _may_have(default: Any, key: str) -> bool:
    """Whether a setting may be replaced: rotary angles only where there is one sort, in the text model."""
    value = vars(default).get(key)
    return value is not None and (key != "rope_parameters" or value.get("rope_type", "axial") != "axial")


def _kind(config: Any) -> dict[str, str]:
    return {"model_type": config.model_type} if getattr(config, "model_type", "") else {}


def _random(model_class: Any, config: Any) -> nn.Module:
    """The model with random weights: N(0, 0.1), and vectors moved by as much."""
    config._attn_implementation = "eager"
    with torch.device("meta"):
        size = sum(one.numel() for one in model_class._from_config(copy.deepcopy(config)).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} million parameters although the known sizes are small")
    torch.manual_seed(0)
    model = model_class._from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.1 * torch.randn(parameter.shape)
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    return model
