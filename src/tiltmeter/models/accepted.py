"""Which models in memory can be measured. They belong to the caller, so none is converted; what to do is said."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from tiltmeter.errors import TiltmeterError

MEASURED_IN = (torch.float32, torch.float64)
"""Types of weights whose rounding is below the differences that are measured."""

MERGE = "merge it with merge_and_unload() and give the model that this returns"
"""What to do with an adapter."""


def refuse_unmeasurable(hf: nn.Module, name: str) -> None:
    """Refuse a model whose numbers would be wrong or could not be told apart from another's.

    Raises:
        TiltmeterError: no model of transformers, or one inside a wrapper or that returns tuples; weights or buffers in
            half precision or less, weights of several types, an adapter of PEFT, or a model whose first weights, where
            token ids go, are not in memory.
    """
    _refuse_adapters(hf, name)
    _refuse_other_classes(hf, name)
    for key, first in list(hf.named_parameters())[:1]:
        if first.is_meta:
            raise TiltmeterError(
                f"{name} has {key} outside memory (device meta); expected it on the device that token ids go to: load "
                "the model with its weights, with a device_map that offloads only its blocks."
            )
    weights = {key: value.dtype for key, value in hf.named_parameters() if value.is_floating_point()}
    buffers = {key: value.dtype for key, value in hf.named_buffers() if value.is_floating_point()}
    for key, dtype in {**weights, **buffers}.items():
        if dtype not in MEASURED_IN:
            raise TiltmeterError(
                f"{name} has {key} in {_short(dtype)}, whose rounding is larger than what is measured; expected "
                "float32 or float64 throughout: convert it with hf.float() first."
            )
    if len(kinds := sorted(map(_short, set(weights.values())))) > 1:
        raise TiltmeterError(
            f"{name} has weights in {' and in '.join(kinds)}; expected one type: convert it with hf.float() or "
            "hf.double() first."
        )


def _refuse_other_classes(hf: nn.Module, name: str) -> None:
    kind = type(hf).__name__
    for wrapped in ("module", "_orig_mod"):  # DataParallel and its like; torch.compile
        if isinstance(getattr(hf, wrapped, None), PreTrainedModel):
            raise TiltmeterError(f"{name} is wrapped in {kind}, whose blocks cannot be reached; give model.{wrapped}.")
    if not isinstance(hf, PreTrainedModel):
        raise TiltmeterError(f"{name} is a {kind}; expected a causal language model of transformers.")
    if not hf.config.return_dict:
        raise TiltmeterError(f"{name} returns tuples; set model.config.return_dict = True.")


def _refuse_adapters(hf: nn.Module, name: str) -> None:
    for place, module in hf.named_modules():
        if any(kind.__module__.partition(".")[0] == "peft" for kind in type(module).__mro__):
            raise TiltmeterError(
                f"{name} has an adapter of PEFT ({type(module).__name__}{' at ' if place else ''}{place}), which "
                f"tiltmeter does not split: {MERGE}."
            )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
