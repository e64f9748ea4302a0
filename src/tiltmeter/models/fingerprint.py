"""What a model is, as the identity of a run states it: computed from the object that runs, never from its name.

Two models with equal fingerprints give equal numbers. Weights alone do not decide them: the same weights with another
activation function, another rotary base or another attention kernel are another model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.failures import explained
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.hashes import weights_sha256

CHANGES_NO_NUMBER = frozenset(
    {
        "_name_or_path",
        "name_or_path",
        "_commit_hash",
        "transformers_version",
        "architectures",  # the class that runs is stated by itself
        "auto_map",
        "dtype",  # that of the file; the one that runs is stated by itself
        "torch_dtype",
        "id2label",
        "label2id",
        "problem_type",
        "task_specific_params",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "use_cache",
    }
)
"""Keys of a configuration that name things, or say what a forward pass returns besides its numbers."""

_NOT_COMPUTED_WITH = frozenset({"training", "name_or_path", "config", "generation_config", "all_tied_weights_keys"})
"""Attributes of modules that are stated elsewhere, or decide nothing. Private ones count if they are numbers."""

DEPTH = 4
"""How far objects that hold objects, and functions that read functions, are followed."""

_ROTARY_STATE = ("inv_freq", "max_seq_len_cached")
"""Ends of the names of what rotary embeddings of a dynamic type change while they run."""


def fingerprint(model: SplitModel) -> dict[str, Any]:
    """What decides the numbers of a model, as JSON values; equal models give equal ones, wherever they came from.

    The weights are hashed anew at every call, since nothing tells reliably whether they were changed in place.

    Raises:
        TiltmeterError: weights that are not in memory, nor where accelerate finds them.
    """
    hf = model.hf
    with explained(hf, "reading what it is"):  # not while another thread's pass has its modules exchanged
        return {
            "class": type(hf).__name__,
            "runs_as": f"{type(model).__name__}, {'centred' if model.centred else 'raw'}",
            "device": ", ".join(sorted({torch.device(device).type for device in _devices(hf)})),
            "dtype": str(hf.dtype).removeprefix("torch."),
            "attention": _implementation(hf.config, "attn"),
            "experts": _implementation(hf.config, "experts"),
            "config": effective_config(hf.config),
            "modules": modules_sha256(hf),
            "sha256": model_sha256(hf),
        }


def fingerprint_sha256(model: SplitModel) -> str:
    """Hash of the fingerprint."""
    return hashlib.sha256(json.dumps(fingerprint(model), sort_keys=True).encode()).hexdigest()


def effective_config(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration without names, paths and versions, as JSON values."""
    plain = _plain(config.to_dict())
    assert isinstance(plain, dict)
    return plain


def model_sha256(hf: PreTrainedModel) -> str:
    """Hash of all parameters and buffers that run, those that no file holds (rotary angles) included.

    Raises:
        TiltmeterError: some are neither in memory nor where accelerate finds them.
    """
    digest = hashlib.sha256()
    for name, module in sorted(hf.named_modules(remove_duplicate=False)):
        with _in_memory(module):
            own = dict(_own_tensors(module))
            if absent := [key for key, tensor in own.items() if tensor.is_meta]:
                raise TiltmeterError(
                    f"The weights {name}.{absent[0]} of {type(hf).__name__} hold no numbers (device meta), so the run "
                    "cannot be identified; load the model with its weights."
                )
            digest.update(f"{name} {weights_sha256(own.items())}".encode() if own else b"")
    return digest.hexdigest()


def modules_sha256(hf: PreTrainedModel) -> str:
    """Hash of what the modules are: classes, settings, activation functions, and hooks that others registered.

    A model in memory can differ from its configuration: a module exchanged, a scale set, a hook that steers.
    """
    digest = hashlib.sha256()
    for name, module in sorted(hf.named_modules(remove_duplicate=False)):
        facts = [type(module).__qualname__, _settings(module), [_described(hook) for hook in _hooks(module)]]
        digest.update(f"{name} {json.dumps(facts, sort_keys=True)}".encode())
    return digest.hexdigest()


def _devices(hf: PreTrainedModel) -> set[str]:
    """Where the model lies: more than one device if accelerate dispatched it; `disk` is not one to compute on."""
    placed = getattr(hf, "hf_device_map", None) or {"": hf.device}
    named = {f"cuda:{where}" if isinstance(where, int) else str(where) for where in placed.values()}
    return (named - {"disk", "meta"}) or {"cpu"}


def _implementation(config: PretrainedConfig, of: str) -> str | None:
    chosen = getattr(config.get_text_config(), f"_{of}_implementation", None)
    return None if chosen is None else str(chosen)


def _plain(value: object) -> object:
    """As JSON values; what has no text of its own is named by its type."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if key not in CHANGES_NO_NUMBER}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(str(_plain(one)) for one in value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, torch.dtype) else type(value).__qualname__


def _in_memory(module: nn.Module) -> Any:
    """A context in which weights that accelerate keeps elsewhere (on disk) are in memory."""
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device

    return align_module_device(module)  # loads only what is offloaded, and moves nothing else


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        if not _changes_while_running(module, name):
            yield name, buffer


def _changes_while_running(module: nn.Module, name: str) -> bool:
    """Whether an entry follows the length of what ran last, as angles of dynamic rotary embeddings do."""
    kind = repr(getattr(module, "rope_type", ""))
    return (
        ("dynamic" in kind or "longrope" in kind)
        and name.endswith(_ROTARY_STATE)
        and not name.endswith("original_inv_freq")
    )


def _settings(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module, apart from parameters, buffers, submodules and private ones that are no numbers."""
    left_out = set(_NOT_COMPUTED_WITH)
    if hasattr(module, "_hf_hook") or "__nnsight__" in vars(module):
        left_out.add("forward")  # accelerate and nnsight put their own there, which compute the same
    return {
        name: _described(value)
        for name, value in vars(module).items()
        if not (name.startswith("_") and not isinstance(value, float | Tensor))
        and name not in left_out
        and not _changes_while_running(module, name)
    }


def _hooks(module: nn.Module) -> list[Any]:
    """Forward hooks that are not those of transformers, which only collect outputs."""
    found = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    return [hook for hook in found if not str(getattr(hook, "__module__", "")).startswith("transformers.")]


def _described(value: Any, depth: int = DEPTH) -> Any:
    """A value, or code, as JSON values that are equal in every process; objects by their type and what they hold."""
    if not depth:
        return _plain(value)
    match value:
        case Tensor():
            return weights_sha256([("", value)])
        case np.ndarray():
            return [str(value.dtype), hashlib.sha256(value.tobytes()).hexdigest()]
        case partial():
            return [_described(one, depth) for one in (value.func, value.args, value.keywords)]
        case MethodType():
            return [_described(value.__func__, depth), _held(value.__self__, depth - 1)]
        case FunctionType():
            read = _enclosed(value, depth - 1) + _globals(value, depth - 1)
            return [value.__qualname__, _code(value.__code__), _described(value.__defaults__, depth - 1), read]
        case Mapping():
            return {str(key): _described(one, depth - 1) for key, one in value.items()}
        case list() | tuple():
            return [_described(one, depth - 1) for one in value]
        case _ if callable(value) and hasattr(value, "__qualname__"):
            return value.__qualname__
        case _ if callable(value) and not isinstance(value, nn.Module):
            return [_described(type(value).__call__, depth - 1), _held(value, depth - 1)]
    return _plain(value)


def _held(value: Any, depth: int) -> Any:
    """The type of an object, and its attributes; of a module, whose weights are hashed elsewhere, the type."""
    attributes = {} if isinstance(value, nn.Module | type) else getattr(value, "__dict__", {})
    return [type(value).__qualname__, _described(attributes, depth)]


def _enclosed(function: FunctionType, depth: int) -> list[Any]:
    """The values that a function takes from around it."""
    return [_described(cell.cell_contents, depth) for cell in function.__closure__ or ()]


def _globals(function: FunctionType, depth: int) -> list[Any]:
    """The numbers, tensors and functions of its own file that a function reads by name."""
    found = [(name, function.__globals__.get(name)) for name in function.__code__.co_names]
    return [
        [name, _described(value, depth)]
        for name, value in found
        if isinstance(value, int | float | str | Tensor | np.ndarray)
        or (isinstance(value, FunctionType) and value.__module__ == function.__module__)
    ]


def _code(code: CodeType) -> list[Any]:
    constants = [_code(one) if isinstance(one, CodeType) else _described(one) for one in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]
