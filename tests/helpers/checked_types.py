"""What checks annotations under pytest: jaxtyping where a function has shapes, and beartype alone where it has none.

jaxtyping makes each call several times as slow, and nine of ten functions have no shapes.
"""

import inspect
from functools import partial
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray, install_import_hook

jaxtyped = jaxtyping.jaxtyped


def check_types(packages: list[str]) -> None:
    """Check what functions of these packages are given and return, in modules that are imported from now on."""
    jaxtyping.jaxtyped = checked
    install_import_hook(packages, "beartype.beartype")


def checked(fn: Any = None, *, typechecker: Any) -> Any:
    """What the import hook puts on every function and class."""
    if fn is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isfunction(fn) and not may_have_shapes(fn):
        return beartype(fn)
    return jaxtyped(fn, typechecker=typechecker)


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
