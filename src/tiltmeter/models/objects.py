"""Models that are given as Python objects: the model of transformers in them, and their tokenizer.

Objects of other libraries are recognised by the names of their classes, so that none of these libraries is imported.
What is taken out of one computes what the object computes: both are compared on a few tokens.
"""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.accepted import MEASURED_IN
from tiltmeter.models.failures import first_line
from tiltmeter.models.hooked_transformer import to_transformers
from tiltmeter.models.probe import probe_tokens

ACCEPTED = (
    "the name of a model, a PreTrainedModel of transformers, a LoadedModel, a HookedTransformer or TransformerBridge "
    "of TransformerLens, or a model of nnsight or nnterp"
)

PROBED = 32
"""Positions on which two models are compared, at most."""

SAME = 3e-5
"""Largest difference of log-probabilities, relative to the largest of them. Largest seen between TransformerLens and
transformers: 1e-5 on SmolLM2 in float32, at 128 positions, and 2e-6 on small models, in float32 and float64 (norms and
rotary angles are computed in float32 there, too)."""


class Found(NamedTuple):
    """The model in an object, which may be of a class that is refused later, and the object's tokenizer."""

    hf: Any
    tokenizer: Any


def model_in(given: object, name: str) -> Found:
    """Find the model of transformers in an object.

    Raises:
        TiltmeterError: there is none, or it does not compute what the object computes.
    """
    tokenizer = getattr(given, "tokenizer", None) if _kinds(given) else None
    if ("transformer_lens", "HookedTransformer") in _kinds(given):
        return Found(_of_hooked_transformer(given, name), tokenizer)
    if ("transformer_lens", "TransformerBridge") in _kinds(given):
        return Found(_of_bridge(given, name), tokenizer)
    if any(package in ("nnsight", "nnterp") for package, _ in _kinds(given)):
        return Found(_of_nnsight(given, name), tokenizer)
    if not isinstance(given, nn.Module) or any(package == "transformer_lens" for package, _ in _kinds(given)):
        raise TiltmeterError(f"{name} is a {_class_of(given)}; expected {ACCEPTED}.")
    return Found(given, None)


def _class_of(given: object) -> str:
    kind = given if isinstance(given, type) else type(given)
    return f"{'class ' if isinstance(given, type) else ''}{kind.__module__}.{kind.__qualname__}"


def _kinds(given: object) -> list[tuple[str, str]]:
    """Package and name of the object's classes that are of other libraries."""
    found = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(given).__mro__]
    return [(package, name) for package, name in found if package in ("transformer_lens", "nnsight", "nnterp")]


def _of_hooked_transformer(given: Any, name: str) -> PreTrainedModel:
    dtype = given.W_E.dtype
    if dtype not in MEASURED_IN:
        raise TiltmeterError(
            f"{name} is in {str(dtype).removeprefix('torch.')}, whose rounding is larger than what is measured; "
            "convert it with model.to(torch.float32)."
        )
    hf = to_transformers(given, name)
    _check_same(given, hf, name)
    return hf


def _of_bridge(given: Any, name: str) -> Any:
    """The model that a bridge was built around, without the modules with which the bridge wraps its parts."""
    hf = _unwrapped(given.original_model)
    _check_same(given, hf, name)
    return hf


def _unwrapped(module: nn.Module) -> nn.Module:
    """A module without TransformerLens's wrappers. Parameters and hooks are shared with it."""
    while isinstance(inner := module._modules.get("_original_component"), nn.Module):
        module = inner
    bare = copy(module)
    bare._modules = {key: None if one is None else _unwrapped(one) for key, one in module._modules.items()}
    return bare


def _of_nnsight(given: Any, name: str) -> Any:
    """The model that nnsight traces. Its interventions are in traces, and its edits in the wrapper."""
    held = vars(given)
    if held.get("_edits") or held.get("_default_mediators"):
        raise TiltmeterError(
            f"{name} has edits of nnsight, which apply to its own traces alone; clear them with clear_edits(), and "
            "make them in the model of transformers, with hooks or in its weights."
        )
    hf = held.get("_module", held.get("_model"))
    if isinstance(hf, nn.Module) and any(weight.is_meta for weight in hf.parameters()):
        raise TiltmeterError(f"{name} has no weights in memory yet; load it with dispatch=True.")
    if hf is None:
        raise TiltmeterError(f"{name} is a {_class_of(given)} in which no model was found; give the model inside.")
    return hf


@torch.no_grad()
def _check_same(given: Any, hf: Any, name: str) -> None:
    """Check that both give the same log-probabilities on a few tokens, up to rounding.

    Raises:
        TiltmeterError: they do not.
    """
    kind = type(given).__name__
    ids = probe_tokens(hf, 2, min(PROBED, given.cfg.n_ctx)).to(hf.device)
    try:
        theirs = given(ids, attention_mask=torch.ones_like(ids)).to(ids.device).log_softmax(-1)
    except Exception as error:
        raise TiltmeterError(f"{name} is a {kind} that could not be run on token ids: {first_line(error)}") from None
    ours = hf(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    off = float((ours - theirs).abs().max() / theirs.abs().max())
    if not off <= SAME:
        raise TiltmeterError(
            f"{name} is a {kind} that computes something else than a {type(hf).__name__} with its weights: "
            f"log-probabilities differ by {off:.1e} of the largest; remove its hooks, SAEs and processed weights "
            "(enable_compatibility_mode), or give a model of transformers."
        )
