"""The site of an SAE by TransformerLens's name, from the name that its files give to it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MODULE = re.compile(r"(?:[\w.]*\.)?(?:layers|h)\.(?P<layer>\d+)(?:\.(?P<part>mlp|self_attn|attn|attention))?")
"""A block of a Hugging Face model, or its MLP or attention. SAEs are trained on what these modules return."""

_NAMED = re.compile(r"(?P<part>resid_post|resid_pre|attention_out|attn_out|mlp_out)_layer_(?P<layer>\d+)")
"""dictionary_learning's names."""

_PARTS: Mapping[str | None, str] = {
    None: "hook_resid_post",
    "mlp": "hook_mlp_out",
    "self_attn": "hook_attn_out",
    "attn": "hook_attn_out",
    "attention": "hook_attn_out",
    "resid_post": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "attention_out": "hook_attn_out",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
}

_HOOK = re.compile(r"(blocks\.\d+\.)(.+)")
_ALIASES: Mapping[str, str] = {
    **{f"hook_{part}": f"attn.hook_{part}" for part in "qkvz"},
    **{f"attn.{part}.hook_out": f"attn.hook_{part}" for part in "qkv"},
    "attn.o.hook_in": "attn.hook_z",
    "hook_in": "hook_resid_pre",
    "hook_out": "hook_resid_post",
    "mlp.out.hook_in": "mlp.hook_post",
    "mlp.hook_out": "hook_mlp_out",
    "attn.hook_out": "hook_attn_out",
}
"""Other names of sites: those in SAELens's ids, and those of TransformerLens's bridge."""

_LAYER = re.compile(r"blocks\.(\d+)\.")

_EMBEDDINGS = re.compile(r"(?:[\w.]*\.)?(?:embed_tokens|embed_in|word_embeddings|wte)")


def transformer_lens_name(hook: str) -> str:
    """The name of a site, from that of a module of Hugging Face or of dictionary_learning; any other unchanged."""
    hook = hook.strip()
    if _EMBEDDINGS.fullmatch(hook):
        return "hook_embed"
    for pattern in (_MODULE, _NAMED):
        if match := pattern.fullmatch(hook):
            return f"blocks.{match['layer']}.{_PARTS[match['part']]}"
    return hook


def site_name(hook: str) -> str:
    """The same, with TransformerLens's other names of a site replaced by the usual one."""
    known = transformer_lens_name(hook)
    match = _HOOK.fullmatch(known)
    return match[1] + _ALIASES.get(match[2], match[2]) if match else known


def layer_of(hook: str) -> int | None:
    """The layer in a site's name; None if it has none."""
    match = _LAYER.match(site_name(hook))
    return int(match[1]) if match else None
