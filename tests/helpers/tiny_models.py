"""Small randomly initialised models of real classes, and a full forward pass with an edit by plain torch hooks.

Where each family keeps its parts is listed here by hand, apart from what tiltmeter finds: the two are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tiltmeter.models.sites import OF_HEADS, OUTSIDE, Site, all_sites

WIDTH, HEADS, LAYERS, VOCABULARY, CONTEXT = 32, 4, 3, 61, 16
HEAD = 12
"""Width of a head where a family lets it be chosen: z is then wider than the stream."""
WINDOW = 4
"""Sliding windows are this long: shorter than the sequences, so that a wrong mask shows."""

LLAMA_LIKE = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
}
NEOX = {key: value for key, value in LLAMA_LIKE.items() if key not in ("num_key_value_heads", "head_dim")}
GPT2 = {
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_layer": LAYERS,
    "n_positions": CONTEXT,
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GEMMA2 = LLAMA_LIKE | {
    "sliding_window": WINDOW,
    "attn_logit_softcapping": 1.5,
    "final_logit_softcapping": 4.0,
    "query_pre_attn_scalar": HEAD,
}
QWEN2 = {key: value for key, value in LLAMA_LIKE.items() if key != "head_dim"}


@dataclass(frozen=True)
class Family:
    """A class of models, and the names of its parts."""

    config_class: str
    settings: dict[str, Any]
    trunk: str = "model"
    blocks: str = "layers"
    final_norm: str = "norm"
    attn_out: str = "self_attn"
    mlp_out: str = "mlp"
    projection: str = "self_attn.o_proj"
    down: str = "mlp.down_proj"
    layer_norm: bool = False
    attentions: tuple[str, ...] = ("eager", "sdpa")


NEOX_PARTS = (
    "gpt_neox",
    "layers",
    "final_layer_norm",
    "attention",
    "mlp",
    "attention.dense",
    "mlp.dense_4h_to_h",
    True,
)
FAMILIES = {
    "gpt2": Family("GPT2Config", GPT2, "transformer", "h", "ln_f", "attn", "mlp", "attn.c_proj", "mlp.c_proj", True),
    "neox-parallel": Family("GPTNeoXConfig", NEOX | {"use_parallel_residual": True}, *NEOX_PARTS),
    "neox-sequential": Family("GPTNeoXConfig", NEOX | {"use_parallel_residual": False}, *NEOX_PARTS),
    "llama": Family("LlamaConfig", LLAMA_LIKE),
    "mistral": Family("MistralConfig", LLAMA_LIKE | {"sliding_window": WINDOW}),
    "qwen2": Family("Qwen2Config", QWEN2),
    "qwen3": Family("Qwen3Config", LLAMA_LIKE),
    "gemma2": Family(
        "Gemma2Config",
        GEMMA2,
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        attentions=("eager",),  # transformers refuses sdpa: it has no soft-cap
    ),
}


@cache
def tiny(
    family: str, attention: str = "eager", dtype: torch.dtype = torch.float64, **settings: int
) -> transformers.PreTrainedModel:
    """A small model with large random weights and random norms, so that everything it computes shows."""
    parts = FAMILIES[family]
    config = getattr(transformers, parts.config_class)(**parts.settings | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.copy_(0.27 * noise if parameter.ndim > 1 else parameter + 0.3 * noise)
    return model.to(dtype).eval()


def random_tokens(batch: int = 2, length: int = 12, seed: int = 0) -> Tensor:
    """Token ids `[batch, length]`."""
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class FullPass:
    """What a full forward pass shows: raw activations at every place asked for, and the logits."""

    seen: dict[Site, Tensor]
    logits: Tensor


@torch.no_grad()
def full_pass(
    family: str,
    model: nn.Module,
    tokens: Tensor,
    reads: Iterable[tuple] = (),
    edits: dict[tuple, Callable[[Tensor], Tensor]] | None = None,
) -> FullPass:
    """Run the whole model, replacing the activation `x` at each place of `edits` by `edit(x)`."""
    seen: dict[Site, Tensor] = {}
    handles = [_hook(family, model, place, edit) for place, edit in (edits or {}).items()]
    handles += [_hook(family, model, place, _keeper(seen, place)) for place in reads]
    try:
        return FullPass(seen, model(input_ids=tokens, use_cache=False).logits)
    finally:
        for handle in handles:
            handle.remove()


def block(family: str, model: nn.Module, layer: int) -> nn.Module:
    """A block of the model."""
    parts = FAMILIES[family]
    return model.get_submodule(f"{parts.trunk}.{parts.blocks}.{layer}")


class _Both:
    """Two hooks that are removed together."""

    def __init__(self, *handles: Any) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def sites_of(family: str) -> list[Site]:
    """The sites of a small model; attention and MLP that are parallel have nothing between them."""
    return [site for site in all_sites(LAYERS) if family != "neox-parallel" or site.kind != "resid_mid"]


def heads_and_modules(family: str, layer: int = 1) -> list[Site]:
    """Sites of single heads, and those outside blocks or named by the path of a module."""
    parts = FAMILIES[family]
    inside = f"{parts.trunk}.{parts.blocks}.{layer}"
    return [
        *(Site(layer, kind, 1) for kind in OF_HEADS),
        Site(0, "embed"),
        Site(LAYERS, "ln_final"),
        Site(layer, "within", path=f"{inside}.{parts.down}"),
        Site(layer, "within", path=f"{inside}.{parts.projection}"),
        Site(LAYERS, "after", path=f"{parts.trunk}.{parts.final_norm}"),
    ]


def _keeper(seen: dict, place: Site) -> Callable[[Tensor], Tensor]:
    def keep(x: Tensor) -> Tensor:
        seen[place] = x.clone()
        return x

    return keep


def _projected(family: str, owner: nn.Module, kind: str) -> tuple[nn.Module, list[int]]:
    """The matrix that computes queries, keys or values, and their columns in its output."""
    at = "qkv".index(kind)
    if family == "gpt2":
        return owner.attn.c_attn, [*range(at * WIDTH, (at + 1) * WIDTH)]
    if family.startswith("neox"):  # by head: its queries, its keys, its values
        size = owner.attention.head_size
        return owner.attention.query_key_value, [
            (3 * head + at) * size + i for head in range(WIDTH // size) for i in range(size)
        ]
    module = owner.get_submodule(f"self_attn.{kind}_proj")
    return module, [*range(module.out_features)]


def _outermost(family: str, model: nn.Module, site: Site) -> nn.Module:
    parts = FAMILIES[family]
    if site.path:
        return model.get_submodule(site.path)
    return (
        model.get_input_embeddings()
        if site.kind == "embed"
        else model.get_submodule(f"{parts.trunk}.{parts.final_norm}")
    )


def _of_head(family: str, model: nn.Module, site: Site, edit: Callable[[Tensor], Tensor]) -> Any:
    """One head's columns of the activation of all heads; its result is these times its rows of the matrix after them."""
    owner = block(family, model, site.layer)
    projection = owner.get_submodule(FAMILIES[family].projection)
    rows = projection.weight if family == "gpt2" else projection.weight.T
    size = len(rows) // HEADS
    own = slice(site.head * size, (site.head + 1) * size)

    def part(x: Tensor) -> Tensor:
        return torch.cat([x[..., : own.start], edit(x[..., own]), x[..., own.stop :]], -1)

    def result(_: nn.Module, args: tuple, out: Tensor) -> Tensor:
        added = args[0][..., own] @ rows[own]
        return out + edit(added) - added

    if site.kind == "result":
        return projection.register_forward_hook(result)
    return _hook(family, model, site._replace(head=None), part)


def _hook(family: str, model: nn.Module, place: tuple, edit: Callable[[Tensor], Tensor]) -> Any:
    """The stream is taken where it enters or leaves a block; TransformerLens's names say which."""
    place = Site(*place)
    parts = FAMILIES[family]
    if place.path or place.kind in OUTSIDE:
        return _outermost(family, model, place).register_forward_hook(lambda _, __, out: edit(out))
    layer, kind, head, _ = place
    owner = block(family, model, layer)
    if head is not None:
        return _of_head(family, model, place, edit)
    if kind == "resid_pre":
        return owner.register_forward_pre_hook(
            lambda _, args, kwargs: (
                ((edit(args[0]), *args[1:]), kwargs)
                if args
                else (args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])})
            ),
            with_kwargs=True,
        )
    if kind == "resid_mid":
        entered: list[Tensor] = []

        def middle(_: nn.Module, __: Any, out: Any) -> Any:
            written = out[0] if isinstance(out, tuple) else out
            new = edit(entered[-1] + written) - entered[-1]
            return (new, *out[1:]) if isinstance(out, tuple) else new

        first = owner.register_forward_pre_hook(
            lambda _, args, kwargs: entered.append((args[0] if args else kwargs["hidden_states"]).clone()),
            with_kwargs=True,
        )
        second = owner.get_submodule(parts.attn_out).register_forward_hook(middle)
        return _Both(first, second)
    if kind in ("q", "k", "v"):
        module, columns = _projected(family, owner, kind)

        def part(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            new = out.clone()
            new[..., columns] = edit(out[..., columns])
            return new

        return module.register_forward_hook(part)
    if kind == "mlp_pre":
        function = owner.mlp.act if FAMILIES[family].layer_norm else owner.mlp.act_fn
        return function.register_forward_pre_hook(lambda _, args: (edit(args[0]), *args[1:]))
    if kind in ("z", "mlp_post"):
        projection = owner.get_submodule(parts.projection if kind == "z" else parts.down)
        return projection.register_forward_pre_hook(lambda _, args: (edit(args[0]), *args[1:]))
    where = {"resid_post": "", "attn_out": parts.attn_out, "mlp_out": parts.mlp_out}[kind]
    return owner.get_submodule(where).register_forward_hook(
        lambda _, __, out: (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)
    )
