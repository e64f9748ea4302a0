"""Families whose blocks, caches, heads or names are not Llama's: right numbers, or a sentence.

The oracle is plain hooks on the full pass in float64, at modules that are named here by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

import families
from tiltmeter.errors import TiltmeterError
from tiltmeter.models import hooks
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.loading import load_model
from tiltmeter.models.positions import Span
from tiltmeter.models.self_check import check_split
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel

LAYERS, VOCABULARY = 3, 61
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_head": 4, "n_layer": LAYERS, "n_positions": 64}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
    "factor": 4.0,
    "original_max_position_embeddings": 9,
}


@dataclass(frozen=True)
class Kind:
    """A configuration, and where its blocks and the writers of a block are."""

    config: str
    settings: dict
    blocks: str
    attention: str | None = None
    mlp: str | None = None
    way: str = "suffix"


KINDS = {
    "tuples": Kind(
        "GPTNeoConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": LAYERS, "num_heads": 4}
        | {"max_position_embeddings": 64, "attention_types": [[["global"], LAYERS]]}
        | ENDS,
        "transformer.h",
        "attn",
        "mlp",
    ),
    "one-key-head": Kind("GPTBigCodeConfig", GPT | ENDS, "transformer.h", "attn", "mlp"),
    "adds-in-place": Kind(
        "FalconConfig",
        {key: value for key, value in LLAMA.items() if key not in ("intermediate_size", "num_key_value_heads")},
        "transformer.h",
        "self_attention",
        "mlp",
    ),
    "stream-inside": Kind(
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": LAYERS, "n_head": 4},
        "transformer.h",
        "self_attention.dense",
        "mlp.dense_4h_to_h",
    ),
    "linear-attention": Kind(
        "Qwen3_5TextConfig",
        LLAMA
        | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention", "linear_attention"]}
        | {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
        | {"linear_key_head_dim": 8, "linear_value_head_dim": 8},
        "model.layers",
        None,
        "mlp",
        way="layers",
    ),
    "token-ids-in-every-layer": Kind(
        "Gemma4TextConfig",
        LLAMA
        | {"head_dim": 12, "sliding_window": 4, "hidden_size_per_layer_input": 8}
        | {"vocab_size_per_layer_input": VOCABULARY},
        "model.layers",
    ),
    "no-final-norm": Kind(
        "OPTConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
        | {"ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False}
        | ENDS,
        "model.decoder.layers",
    ),
    "state-space": Kind(
        "MambaConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": LAYERS, "state_size": 8} | ENDS,
        "backbone.layers",
        way="layers",
    ),
    "angles-by-length": Kind("Phi3Config", LLAMA | {"rope_parameters": LONGROPE}, "model.layers", "self_attn", "mlp"),
}


def build(kind: Kind) -> nn.Module:
    config = getattr(transformers, kind.config)(**kind.settings)
    if kind.config == "Phi3Config":
        config.original_max_position_embeddings = 9
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    return model


def tokens(rows=2, length=12):
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def pushed_logits(hf, kind, site, push, ids):
    """Logits of the full pass with `push` added at the site, by one hook."""
    block = hf.get_submodule(f"{kind.blocks}.{site.layer}")
    inner = {"attn_out": kind.attention, "mlp_out": kind.mlp}.get(site.kind)

    def enter(_, args, kwargs):
        return (
            ((args[0] + push, *args[1:]), kwargs)
            if args
            else (args, kwargs | {"hidden_states": kwargs["hidden_states"] + push})
        )

    def leave(_, __, out):
        return (out[0] + push, *out[1:]) if isinstance(out, tuple) else out + push

    if site.kind == "resid_pre":
        handle = block.register_forward_pre_hook(enter, with_kwargs=True)
    else:
        handle = (block.get_submodule(inner) if inner else block).register_forward_hook(leave)
    try:
        return hf(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()


def error(hf, kind, model, site, span, ids):
    """Largest difference of the logits from the full pass, beside the largest change of a logit."""
    clean = model.start(ids, site, (), span)
    width = clean.activation.shape[-1]
    push = torch.zeros(2, *ids.shape, width, dtype=torch.float64)
    push[:, :, span.first] = torch.randn(2, 1, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    late = model.resume(clean, span.cut(clean.activation) + push[:, :, span.first : span.stop]).final
    worst, change = 0.0, 0.0
    plain = hf(input_ids=ids, use_cache=False).logits
    for at in range(2):
        wanted = pushed_logits(hf, kind, site, push[at], ids)
        found = torch.stack([model.logits(row) for row in late[at]])
        worst = max(worst, float((found - span.cut(wanted)).abs().max()))
        change = max(change, float((span.cut(wanted) - span.cut(plain)).abs().max()))
    return worst, change


def sites(kind):
    inner = [name for name, path in (("attn_out", kind.attention), ("mlp_out", kind.mlp)) if path]
    return [Site(1, "resid_pre"), Site(1, "resid_post"), Site(2, "resid_post"), *(Site(1, one) for one in inner)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("span", [Span(0, 12), Span(5, 8)], ids=["all", "5+2"])
def test_every_kind_gives_the_full_pass(name, span):
    kind, ids = KINDS[name], tokens()
    hf = build(kind)
    model = SplitModel(hf)
    for site in sites(kind):
        worst, change = error(hf, kind, model, site, span, ids)
        assert change > 1e-4, f"the push at {site.name} does not show"
        assert worst < 1e-6 + 1e-4 * change, f"{site.name}: off by {worst:.1e} of {change:.1e}"
        check_split(model, model.start(ids, site, (), span))
    if span.first:
        assert model.way(Site(1, "resid_pre"), span) == kind.way


def test_a_tensor_captured_before_an_addition_in_place_is_seen_to_be_wrong(monkeypatch):
    """Negative control: without the copy, Falcon's MLP output is that of attention and MLP together."""
    kind, ids = KINDS["adds-in-place"], tokens()
    hf = build(kind)
    model = SplitModel(hf)
    right = model.start(ids, Site(1, "mlp_out")).activation
    monkeypatch.setattr(torch.Tensor, "clone", lambda self: self)
    assert (model.start(ids, Site(1, "mlp_out")).activation - right).abs().max() > 1e-3


def test_a_skipped_block_returns_what_the_block_returns():
    for name in ("tuples", "angles-by-length"):
        parts = SplitModel(build(KINDS[name])).parts
        x = torch.ones(1, 3, 32, dtype=torch.float64)
        with hooks.skipped(parts.blocks, range(1), parts.extras):
            found = parts.blocks[0](x)
        assert isinstance(found, tuple) == (name == "tuples")
        assert torch.equal(found[0] if name == "tuples" else found, x)


def test_differences_are_tried_with_rows_and_points():
    assert "shape" in ExactModel(build(KINDS["one-key-head"]).float()).obstacle()


def test_what_a_model_raises_is_a_sentence():
    model = SplitModel(build(KINDS["tuples"]))
    clean = model.start(tokens(), Site(1, "resid_pre"))

    def fail(*_):
        raise ValueError("no such thing\nsecond line")

    handle = model.parts.blocks[2].register_forward_hook(fail)
    told = r"GPTNeoForCausalLM failed while running the layers after blocks\.1\.hook_resid_pre: ValueError: no such thing\."
    with pytest.raises(TiltmeterError, match=f"{told} Try --precision float32") as refused:
        model.resume(clean, clean.activation)
    assert "second" not in str(refused.value)
    handle.remove()
    handle = model.parts.blocks[2].register_forward_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        model.resume(clean, clean.activation)
    handle.remove()


def test_sites_that_a_block_does_not_have_are_refused():
    model = SplitModel(build(KINDS["state-space"]))
    for kind in ("attn_out", "mlp_out", "z"):
        with pytest.raises(TiltmeterError, match="cannot be measured; use hook_resid_pre or hook_resid_post"):
            model.start(tokens(), Site(1, kind))


@pytest.mark.parametrize("family", ["gemma3", "mistral3", "qwen2_5_vl"])
def test_multimodal_models_are_loaded_by_directory(family, tmp_path):
    hf = families.build(family, families.families()[family])
    hf.config.architectures = [type(hf).__name__]
    hf.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert loaded.facts["class"] == type(hf).__name__
    clean = loaded.model.start(tokens(), Site(1, "resid_pre"), (), Span(5, 8))
    check_split(loaded.model, clean)


ROWS = (
    "gpt_neo",
    "gpt_bigcode",
    "falcon",
    "opt",
    "mamba",
    "granite",
    "recurrent_gemma",
    "gemma4_text",
    "deepseek_v4",
    "t5gemma2",
)


@pytest.mark.parametrize("family", ROWS)
def test_the_page_of_models_says_what_the_command_finds(family):
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert families.row(families.check(family, families.families()[family])) in text.splitlines()


@pytest.mark.parametrize("kind", ["attn_out", "resid_mid", "mlp_pre", "mlp_post", "mlp_out"])
def test_an_mlp_on_a_list_of_tokens_is_refused_with_the_reason(kind):
    model = SplitModel(build(KINDS["no-final-norm"]))
    with pytest.raises(
        TiltmeterError, match=r"computed on all tokens in one list \[batch · position, width\].*so blocks.1"
    ):
        model.start(tokens(), Site(1, kind))


def test_no_number_on_the_page_is_wrong():
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert "WRONG" not in text and "TRACEBACK" not in text
