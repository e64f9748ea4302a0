"""Packages that only some uses need: what to install where one is missing."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

from tiltmeter.errors import TiltmeterError


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: `pyarrow.parquet`, for example.
        extra: the extra of tiltmeter that installs the package.
        what: what needs it, as the beginning of a sentence.

    Raises:
        TiltmeterError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise TiltmeterError(
            f"{what} needs the package {package}, which is not installed: pip install 'tiltmeter[{extra}]'."
        ) from error
