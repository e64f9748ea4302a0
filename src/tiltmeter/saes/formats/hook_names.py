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

_EMBEDDINGS = frozenset({"embed_tokens", "model.embed_tokens", "wte", "transformer.wte", "hook_embed"})


def transformer_lens_name(hook: str) -> str:
    """The name of a site, from that of a module of Hugging Face or of dictionary_learning; any other unchanged."""
    hook = hook.strip()
    if hook in _EMBEDDINGS:
        return "blocks.0.hook_resid_pre"
    for pattern in (_MODULE, _NAMED):
        if match := pattern.fullmatch(hook):
            return f"blocks.{match['layer']}.{_PARTS[match['part']]}"
    return hook
