"""Find the parts of a Hugging Face decoder: its blocks, norms, attentions and MLPs.

For this package, decoder families differ mostly in the names of their modules. A new family needs its names in the
tuples below; what the modules compute is never rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site

TRUNK_BLOCKS = ("h", "layers", "blocks")
FINAL_NORMS = ("ln_f", "final_layer_norm", "norm", "final_layernorm")
ATTENTIONS = ("attn", "attention", "self_attn", "self_attention")
OUTPUT_PROJECTIONS = ("c_proj", "o_proj", "dense", "out_proj")
MLPS = ("mlp", "feed_forward")


@dataclass(frozen=True)
class ModelParts:
    """The parts of one model that tiltmeter needs to reach."""

    trunk: nn.Module
    """The whole model except the unembedding."""
    blocks: nn.ModuleList
    final_norm: nn.Module

    def component(self, site: Site) -> nn.Module:
        """The module whose output is `hook_attn_out` or `hook_mlp_out`, or whose input is `attn.hook_z`.

        Gemma 2 and 3 normalise the outputs of attention and MLP. As in TransformerLens, the site is after that norm.
        """
        block = self.blocks[site.layer]
        normalises_writes = hasattr(block, "post_feedforward_layernorm")
        if site.kind == "mlp_out":
            return _first(block, ("post_feedforward_layernorm",) if normalises_writes else MLPS, "MLP")
        if site.kind == "attn_out" and normalises_writes:
            return _first(block, ("post_attention_layernorm",), "norm after attention")
        attention = _first(block, ATTENTIONS, "attention")
        return attention if site.kind == "attn_out" else _first(attention, OUTPUT_PROJECTIONS, "output projection")


def find_parts(model: nn.Module) -> ModelParts:
    """Find the parts of a Hugging Face causal language model.

    Raises:
        TiltmeterError: the model is not a decoder with the module names of a known family.
    """
    trunk = getattr(model, "base_model", None)
    if trunk is None or trunk is model:
        raise TiltmeterError(f"{type(model).__name__} has no trunk below a language-model head; load a causal LM.")
    trunk = getattr(trunk, "decoder", trunk)  # OPT's language-model head calls the decoder inside its base model
    blocks = _first(trunk, TRUNK_BLOCKS, "list of blocks")
    if not isinstance(blocks, nn.ModuleList):
        raise TiltmeterError(f"The blocks of {type(model).__name__} are not a list of modules; it cannot be split.")
    return ModelParts(trunk, blocks, _first(trunk, FINAL_NORMS, "final norm"))


def ignores_mean(norm: nn.Module, like: Tensor) -> bool:
    """Whether a norm ignores a constant added to its input: true of LayerNorm, false of RMSNorm.

    `like` has the width, dtype and device of the residual stream.
    """
    probe = torch.linspace(-1, 1, like.shape[-1]).to(like).repeat(1, 1, 1)
    with torch.no_grad():
        return bool(torch.allclose(norm(probe), norm(probe + 0.5), atol=1e-3, rtol=1e-2))


def _first(parent: nn.Module, names: tuple[str, ...], what: str) -> nn.Module:
    for name in names:
        try:
            return parent.get_submodule(name)
        except AttributeError:
            continue
    raise TiltmeterError(
        f"No {what} was found in {type(parent).__name__} (looked for {', '.join(names)}); this family of models is not "
        "supported yet: add its module names to tiltmeter/models/architectures.py."
    )
