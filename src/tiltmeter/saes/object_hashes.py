"""What identifies an SAE object: the tensors and settings that it holds, and the source of its classes.

A run is resumed only with the SAE that it was begun with, so an object whose function is not all in what is hashed
needs a version from its user.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import FunctionType, MemberDescriptorType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import fingerprint

_LIBRARIES = frozenset(
    {"abc", "builtins", "collections", "dataclasses", "enum", "math", "numpy", "operator", "sae_lens", "tiltmeter"}
    | {"torch", "transformer_lens", "types", "typing"}
)
"""Packages whose classes and functions are known by their names."""

_OF_CLASSES = frozenset({"__doc__", "__firstlineno__", "__module__", "__qualname__"})
"""Attributes that every class has."""

_NUMBERS = "fiub"
"""Kinds of NumPy arrays that are tensors here: floating point, integers, booleans."""

_PLAIN = (bool, int, float, complex, str, bytes, np.generic, Enum, PurePath, torch.dtype, torch.device)
"""Types of settings whose `repr` says all of them."""

_OF_MODULES = frozenset({*vars(torch.nn.Module()), "training"})
"""Attributes that every module has."""


def identify(name: str, given: object) -> str:
    """Hash of an object's tensors, of its plain settings (numbers, texts, lists of them) and of its classes' source.

    Functions and values outside its classes are not seen.

    Raises:
        TiltmeterError: what it computes is not all in these, as far as can be seen.
    """
    tensors = tensors_of(given)
    if not tensors:
        raise _unidentified(name, "no tensors are found in it")
    classes = sorted({cls for part in _parts(given) for cls in _own_classes(type(part))}, key=_title)
    source = {_title(cls): _source(name, cls) for cls in classes}
    return fingerprint(tensors, {"source": source, "settings": _settings(name, given)})


def identify_version(given: object, version: str) -> str:
    """Hash of an object's tensors and class, and of the version that its user gave it."""
    return fingerprint(tensors_of(given), {"version": version, "class": _title(type(given))})


def tensors_of(given: object) -> dict[str, Tensor]:
    """The tensors that an object holds, by the names of its attributes; also those of its parts and of containers."""
    found: dict[str, Tensor] = {}
    for prefix, part in _named_parts(given):
        if isinstance(part, torch.nn.Module):
            for named in (part.named_parameters, part.named_buffers):
                found |= {prefix + key: one for key, one in named(recurse=False, remove_duplicate=False)}
        for key, value in _leaves(prefix, part):
            if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS:
                value = torch.from_numpy(np.array(value))
            if isinstance(value, Tensor):
                found.setdefault(key, value)
    return {key: tensor.detach() for key, tensor in found.items()}


def _named_parts(given: object, prefix: str = "", seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, object]]:
    """The object, the modules in it, and other objects with attributes among its attributes; each may occur again."""
    yield prefix, given
    seen = seen | {id(given)}
    children = given.named_children() if isinstance(given, torch.nn.Module) else ()
    inner = [*((prefix + key, child) for key, child in children), *_leaves(prefix, given)]
    for key, value in inner:
        if id(value) not in seen and _is_part(value):
            yield from _named_parts(value, f"{key}.", seen)


def _is_part(value: object) -> bool:
    """Whether what a value does is in its attributes."""
    if isinstance(value, (Tensor, Enum, type, FunctionType, MethodType)):
        return False
    return hasattr(value, "__dict__") or bool(_slots(value))


def _leaves(prefix: str, part: object) -> Iterator[tuple[str, Any]]:
    """What the attributes of an object are, or hold if they are containers, each with where it is."""
    for key, value in _attributes(part).items():
        yield from _opened(prefix + key, value)


def _opened(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, partial):
        value = {"func": value.func, "args": value.args, "keywords": value.keywords}
    if _is_plain(value) or not isinstance(value, (Mapping, list, tuple)):
        yield key, value
        return
    for at, one in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _opened(f"{key}.{at}", one)


def _parts(given: object) -> list[object]:
    return [part for _, part in _named_parts(given)]


def _attributes(part: object) -> Mapping[str, Any]:
    own = {**getattr(part, "__dict__", {}), **_slots(part)}
    return {key: value for key, value in own.items() if not isinstance(part, torch.nn.Module) or key not in _OF_MODULES}


def _slots(part: object) -> dict[str, Any]:
    """Attributes that are kept in slots."""
    slots = {
        name
        for cls in _own_classes(type(part))
        for name, one in vars(cls).items()
        if isinstance(one, MemberDescriptorType)
    }
    return {name: getattr(part, name) for name in sorted(slots) if hasattr(part, name)}


def _own_classes(cls: type) -> list[type]:
    return [one for one in cls.__mro__ if one.__module__.partition(".")[0] not in _LIBRARIES]


def _source(name: str, cls: type) -> str:
    """The source of a class, or of its methods where only these can be read, as in a notebook."""
    methods = {key: one for key, value in vars(cls).items() if (one := _method(value)) and not _is_generated(cls, one)}
    for key, one in methods.items():
        if {*one.__code__.co_freevars} - {"__class__"}:
            raise _unidentified(name, f"{key} of {cls.__name__} uses variables of the function that it was made in")
    try:
        return textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        pass
    try:
        found = {key: textwrap.dedent(inspect.getsource(one)) for key, one in methods.items()}
    except (OSError, TypeError):
        raise _unidentified(name, f"the source of {cls.__name__} cannot be read") from None
    plain = {key: repr(value) for key, value in vars(cls).items() if _is_plain(value) and key not in _OF_CLASSES}
    return repr(sorted((found | plain).items()))


def _method(value: object) -> FunctionType | None:
    """The function behind a method, without what decorators of libraries put around it (`torch.no_grad`)."""
    function = getattr(value, "__func__", getattr(value, "fget", value))
    while isinstance(function, FunctionType) and hasattr(function, "__wrapped__"):
        if function.__globals__["__name__"].partition(".")[0] not in _LIBRARIES:
            break
        function = function.__wrapped__
    return function if isinstance(function, FunctionType) else None


def _is_generated(cls: type, method: FunctionType) -> bool:
    """Whether dataclasses wrote this method."""
    return is_dataclass(cls) and method.__code__.co_filename == "<string>" and method.__name__.startswith("__")


def _settings(name: str, given: object) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix, part in _named_parts(given):
        if isinstance(part, torch.nn.Module) and (part._forward_hooks or part._forward_pre_hooks):
            raise _unidentified(name, f"{prefix.rstrip('.') or 'it'} has hooks")
        for key, value in _leaves(prefix, part):
            if _is_known(value):
                found[key] = _title(value)
            elif _is_plain(value):
                found[key] = repr(value)
            elif isinstance(value, (set, frozenset)) and all(map(_is_plain, value)):
                found[key] = repr(sorted(map(repr, value)))
            elif isinstance(value, (FunctionType, MethodType)):
                raise _unidentified(name, f"its {key} is a function of its own")
            elif not _is_hashed(value):
                raise _unidentified(name, f"its {key} is of type {type(value).__name__}")
    return found


def _is_hashed(value: object) -> bool:
    """Whether a value is among the tensors or the parts of an object."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in _NUMBERS
    return isinstance(value, Tensor) or _is_part(value)


def _is_known(value: object) -> bool:
    """Whether this is a function or class of a library, such as `torch.relu`."""
    home = getattr(value, "__module__", None) or ""
    named = hasattr(value, "__qualname__") and not getattr(value, "__closure__", None)
    return named and not isinstance(value, MethodType) and home.partition(".")[0] in _LIBRARIES


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, _PLAIN)


def _title(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _unidentified(name: str, why: str) -> TiltmeterError:
    return TiltmeterError(
        f"What {name} computes cannot be hashed, so that a run could be resumed with another one: {why}; give it a "
        'version of your own: tm.wrap_sae(object, version="...").'
    )
