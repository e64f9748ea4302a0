"""What checks annotations under pytest: jaxtyping with beartype, of functions that have shapes.

Nine of ten functions have none: mypy checks their types. Checks are built where a function is first called, and made
in its first calls of each test: inner loops have thousands, and all pass the same.
Functions inside functions are left alone: they are new at each call of the outer one, and so would be their checks.
"""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jaxtyping
from jaxtyping import AbstractArray, install_import_hook

jaxtyped = jaxtyping.jaxtyped

CALLS = 4
"""Calls of a function that are checked in one test."""

_test = object()


def with_shapes(*packages: str) -> list[str]:
    """The modules of these packages that mention jaxtyping, without importing them."""
    found = []
    for package in packages:
        (root,) = find_spec(package).submodule_search_locations
        files = [file for file in Path(root).rglob("*.py") if "jaxtyping" in file.read_text(encoding="utf-8")]
        found += [".".join((package, *file.relative_to(root).with_suffix("").parts)) for file in files]
    return found


def check_types(modules: list[str]) -> None:
    """Check what functions of these modules are given and return, if they are imported from now on."""
    jaxtyping.jaxtyped = checked
    install_import_hook(modules, "beartype.beartype")


def checked(fn: Any = None, *, typechecker: Any) -> Any:
    """What the import hook puts on every function and class."""
    if fn is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isfunction(fn):
        return fn if "<locals>" in fn.__qualname__ else _sampled(fn, typechecker)
    return jaxtyped(fn, typechecker=typechecker)


def begin_test() -> None:
    """Check the next calls of every function."""
    global _test
    _test = object()


def _sampled(fn: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
    """The function, with its first calls of each test checked."""
    check: Callable[..., Any] | None = None
    test, left = None, 0

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal check, test, left
        if test is not _test:
            test, left = _test, CALLS
        if not left:
            return fn(*args, **kwargs)
        left -= 1
        if check is None:
            check = jaxtyped(fn, typechecker=typechecker) if may_have_shapes(fn) else fn
        return check(*args, **kwargs)

    return call


def may_have_shapes(fn: Any) -> bool:
    """Whether an annotation has a shape, or cannot be looked up yet."""
    try:
        return any(map(_has_shape, get_type_hints(fn, include_extras=True).values()))
    except Exception:  # a name of a class that is not there yet, among others
        return True


def _has_shape(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    inner = hint if isinstance(hint, list) else get_args(hint)
    return any(map(_has_shape, inner))
