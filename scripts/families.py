"""Which families of models can be measured, and where: writes docs/models.md.

    OMP_NUM_THREADS=1 python scripts/families.py [--only NAME ...]

Builds a tiny random model of every class that transformers loads as a causal or image-text language model, pushes it
along a random direction at each kind of site, and compares the mean KL with that of plain torch hooks on the full
forward pass in float64 (in float32 where the class knows no other). Each family is tried in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.positions import Positions, parse_positions
from tiltmeter.models.readouts import Readout, compute_readouts
from tiltmeter.models.self_check import check_additive, check_split
from tiltmeter.models.sites import HOOKS, Site
from tiltmeter.models.split_model import SplitModel

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
VOCABULARY, WIDTH, LAYERS, LENGTH, LAYER = 61, 32, 4, 12, 1
"""Sizes of the tiny models and token batches, and the layer that is pushed."""

LARGEST = 30_000_000
"""Models with more parameters are not built: their configuration has sizes that are not known here."""

SECONDS = 120
"""Longest time that one family may take."""

ASKED = ("all", "5")
PRECISIONS: dict[str, type[SplitModel]] = {"float32-difference": ExactModel, "float32": SplitModel}

CLOSE = 0.02
"""Largest relative error of a mean KL that is called right."""

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "depth"), LAYERS),
    **dict.fromkeys(("encoder_layers", "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads",), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "dff", "ffn_hidden_size"), 64),
    **dict.fromkeys(("mlp_dim", "block_ff_dim"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("head_dim", "d_head", "d_kv", "v_head_dim", "global_head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "attention_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "lora_rank"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "rotary_dim", "mamba_d_head"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_state", "state_size", "mamba_d_ssm", "time_step_rank"), 16),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), 4),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_n_groups", "first_k_dense_replace"), 1),
    **dict.fromkeys(("vocab_size_per_layer_input",), VOCABULARY),
    **dict.fromkeys(("hidden_size_per_layer_input", "altup_active_idx"), 8),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    **dict.fromkeys(("image_token_id", "image_token_index", "video_token_id"), VOCABULARY - 1),
    **dict.fromkeys(("vision_start_token_id", "vision_end_token_id", "audio_token_id"), VOCABULARY - 2),
    "image_size": 16,
    "patch_size": 8,
    "is_decoder": True,
}
"""Small sizes, by the names that configurations have for them."""

SPECIAL: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]], "window_size": 4},
    "deepseek_v2": {"num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4, "n_group": 2},
    "mpt": {"expansion_ratio": 2},
    "gemma3n_text": {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * LAYERS},
    "qwen2_vl": {"vision_config": {"embed_dim": 32, "hidden_size": WIDTH, "depth": 2, "num_heads": 4, "patch_size": 8}},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1},
    "bamba": {"attn_layer_indices": [2]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "phi3": {"original_max_position_embeddings": 64},
}
"""Settings of single families, where small sizes alone make no valid model."""


@dataclass
class Result:
    """What was found for one family."""

    family: str
    cells: dict[str, str] = field(default_factory=dict)
    """For each kind of site, what happened."""
    note: str = ""
    """Why there is no cell, or how the layers after the site are run."""


def families() -> dict[str, str]:
    """The model class of each family, by its type; a multimodal class is named beside its text half."""
    found = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for kind, name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items():
        found[kind if found.get(kind, name) == name else f"{kind} (image and text)"] = name
    return dict(sorted(found.items()))


def build(family: str, name: str) -> nn.Module:
    """A tiny random model in float32.

    Raises:
        Exception: whatever the class raises on the small sizes.
    """
    kind = family.partition(" ")[0]
    config_class = CONFIG_MAPPING[kind]
    reasons: list[str] = []
    for without in ((), ("head_dim",), ("sliding_window", "head_dim"), tuple(SIZES)[1:]):
        with _noted(reasons):
            config = config_class(**_small(config_class, without) | SPECIAL.get(kind, {}))
            return _random(getattr(transformers, name), config)
    raise ValueError(reasons[0])


@contextlib.contextmanager
def _noted(reasons: list[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reasons.append(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:110])


def _small(config_class: Any, without: tuple[str, ...]) -> dict[str, Any]:
    """The small sizes that a configuration has a setting for, those of its parts included."""
    default = config_class()
    settings = {key: value for key, value in SIZES.items() if key not in without and _is_set(default, key)}
    for part in getattr(config_class, "sub_configs", {}):
        own = getattr(default, part, None)
        if own is not None:
            settings[part] = _small(type(own), without) | _kind(own)
    if "vl" in getattr(config_class, "model_type", "") and _is_rotary(default):
        settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    return settings


def _is_rotary(config: Any) -> bool:
    return "rope_type" in (getattr(config, "rope_parameters", None) or {})


def _is_set(config: Any, key: str) -> bool:
    """Whether a configuration has a plain setting of this name, under this name."""
    return key in vars(config) and not isinstance(vars(config)[key], (list, tuple, dict))


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


def check(family: str, name: str) -> Result:
    """Build a family and try every cell."""
    try:
        hf = build(family, name)
    except Exception as error:
        return Result(family, note=f"not built: {error}")
    if hf.config.is_encoder_decoder:
        return Result(family, note="not decoder-only")
    return check_model(family, hf)


def check_model(family: str, hf: Any) -> Result:
    """Try every kind of site of a model at each position in each precision."""
    tokens = torch.randint(1, VOCABULARY - 2, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    try:
        hf(input_ids=tokens, use_cache=False)
    except Exception as error:
        return Result(family, note=f"not built: runs on no text alone: {_short(error)}")
    try:
        models = {precision: made(hf, family) for precision, made in PRECISIONS.items()}
    except TiltmeterError as error:
        return Result(family, note=f"refused: {error}")
    obstacle = models["float32-difference"].obstacle()  # type: ignore[attr-defined]
    whole = _reference_model(hf, tokens)
    cells = {}
    for kind in HOOKS:
        site, outcomes = Site(LAYER, kind), {}
        for precision, model in models.items():
            for asked in ASKED:
                refused = obstacle if precision == "float32-difference" else None
                outcomes[precision, asked] = "refused" if refused else cell(model, whole, tokens, site, asked)
        cells[kind] = _told(outcomes)
    return Result(family, cells, note=_speed(models["float32"]))


def _speed(model: SplitModel) -> str:
    """How runs from layer 1 at one position are made, where that is not the fastest way."""
    try:
        way = model.way(Site(LAYER, "resid_pre"), parse_positions(ASKED[1], LENGTH).span)
    except TiltmeterError:
        return ""
    return {"suffix": "", "layers": "runs all positions", "model": "runs the whole model"}[way]


def cell(model: SplitModel, whole: Any, tokens: Tensor, site: Site, asked: str) -> str:
    """Compare one mean KL with that of plain hooks: `right`, `refused`, `WRONG`, or a raw exception's type."""
    positions = parse_positions(asked, LENGTH)
    try:
        clean = model.start(tokens, site, (), positions.span)
        check_split(model, clean)
        check_additive(model, tokens, site)
        x = positions.span.cut(clean.activation)
        move = 0.3 * x.norm(dim=-1).median() * _direction(x.shape[-1])
        index = torch.tensor(positions.perturbed) - positions.span.first
        change = torch.zeros(1, *x.shape).index_fill(2, index, 1) * move
        late = model.changes(clean, change)
        found = float(compute_readouts(model, clean, late, [Readout("kl")], positions.read)["kl"].mean())
    except TiltmeterError:
        return "refused"
    except Exception as error:
        return f"TRACEBACK {type(error).__name__}"
    expected = reference(whole, model, tokens, site, positions, move)
    return "right" if abs(found - expected) <= CLOSE * expected else f"WRONG {found / expected:.2f}x"


def _direction(width: int) -> Tensor:
    direction = torch.randn(width, generator=torch.Generator().manual_seed(1))
    return direction / direction.norm()


@torch.no_grad()
def reference(whole: Any, model: SplitModel, tokens: Tensor, site: Site, positions: Positions, move: Tensor) -> float:
    """Mean KL in nats at the read positions, by plain hooks on two full passes."""
    module, side = model.tap(site)
    name = next(name for name, one in model.hf.named_modules() if one is module)
    clean = whole(input_ids=tokens, use_cache=False).logits
    handle = _push(whole.get_submodule(name), side, positions, move)
    try:
        moved = whole(input_ids=tokens, use_cache=False).logits
    finally:
        handle.remove()
    p, q = (logits[:, list(positions.read)].double().log_softmax(-1) for logits in (clean, moved))
    return float((p.exp() * (p - q)).sum(-1).mean())


def _push(module: nn.Module, side: str, positions: Positions, move: Tensor) -> Any:
    """Add `move` at the perturbed positions to what enters or leaves a module."""

    def pushed(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, list(positions.perturbed)] += move.to(x)
        return x

    def enter(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (pushed(args[0]), *args[1:]), kwargs
        key = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        return args, kwargs | {key: pushed(kwargs[key])}

    def leave(_: nn.Module, __: tuple, output: Any) -> Any:
        return (pushed(output[0]), *output[1:]) if isinstance(output, tuple) else pushed(output)

    if side == "input":
        return module.register_forward_pre_hook(enter, with_kwargs=True)
    return module.register_forward_hook(leave)


def _reference_model(hf: Any, tokens: Tensor) -> Any:
    """The model in float64, or in float32 if its class cannot run in float64."""
    try:
        whole = copy.deepcopy(hf).double()
        whole(input_ids=tokens, use_cache=False)
    except Exception:
        return copy.deepcopy(hf)
    return whole


def _told(outcomes: dict[tuple[str, str], str]) -> str:
    """One word for equal outcomes; else each outcome with where it holds."""
    if bad := sorted({f"{what} ({', '.join(at)})" for at, what in outcomes.items() if what[0].isupper()}):
        return "; ".join(bad)
    whole = {what for what in outcomes.values()}
    if len(whole) == 1:
        return whole.pop()
    by_precision = {one: {outcomes[one, asked] for asked in ASKED} for one in PRECISIONS}
    if by_precision == {"float32-difference": {"refused"}, "float32": {"right"}}:
        return "float32"
    return "right: " + ", ".join(" ".join(at) for at, what in outcomes.items() if what == "right")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:110]


def in_a_process(work: Callable[[str, str], Result], family: str, name: str) -> Result:
    """Run in a child process; a family that takes too long, or ends the process, is one row of the table too."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)

    def child() -> None:
        its.send(work(family, name))

    process = context.Process(target=child)
    process.start()
    its.close()
    try:
        if mine.poll(SECONDS):
            return mine.recv()
        return Result(family, note=f"not built: took more than {SECONDS} s")
    except EOFError:
        return Result(family, note="not built: the process ended")
    finally:
        process.kill()
        process.join()


def page(results: list[Result]) -> str:
    """docs/models.md: one row per family, grouped by equal result."""
    tried = [one for one in results if one.cells]
    tried.sort(key=lambda one: (_rank(one), tuple(one.cells.values()), one.note, one.family))
    head = f"| family | {' | '.join(HOOKS)} | |\n|{'---|' * (len(HOOKS) + 2)}\n"
    rows = [row(one) for one in tried]
    rest = [row(one) for one in results if not one.cells]
    return INTRODUCTION.format(count=len(tried), version=transformers.__version__) + (
        head
        + "\n".join(rows)
        + "\n\n## Refused, or not tried\n\n| family | why |\n|---|---|\n"
        + "\n".join(rest)
        + "\n"
    )


def row(result: Result) -> str:
    """One line of a table of docs/models.md."""
    return "| " + " | ".join([result.family, *result.cells.values(), result.note.replace("|", "/")]) + " |"


def _rank(result: Result) -> int:
    """Families that are right everywhere first."""
    return sum({"right": 0, "float32": 1}.get(cell, 20) for cell in result.cells.values())


INTRODUCTION = """# Models

Tiny random models of {count} families (transformers {version}), pushed along a random direction at layer 1 at all
positions and at one in the middle; the mean KL compared with plain hooks on the full forward pass.
`python scripts/families.py` writes this page.

- `right`: within 2 % in both precisions of `auto`, at all positions and at one.
- `float32`: right with `--precision float32`, which `auto` falls back to; carried differences are refused.
- `refused`: a sentence says why; no number is given.
- *runs all positions*: the model's cache cannot hold what earlier positions leave, so perturbed runs begin at
  position 0. *runs the whole model*: its layers cannot be run without those before the site. Slower, but the
  same numbers.

"""

REST = """
## Refused, or not tried

| family | why |
|---|---|"""


def main() -> None:
    """Try the families and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="print the rows of these families, and write nothing")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    results = []
    for family, name in families().items():
        if only and family not in only:
            continue
        begin = time.perf_counter()
        results.append(in_a_process(check, family, name))
        told = " | ".join(results[-1].cells.values())
        print(f"{family} | {told} | {results[-1].note} | {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    if not only:
        PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
