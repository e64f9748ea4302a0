"""What identifies a function of the user's: the version that they give it.

A run is resumed only with the functions that it was begun with. What a function computes may depend on anything, so it
cannot be hashed as a tensor can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiltmeter.errors import TiltmeterError


@dataclass(frozen=True)
class Versioned:
    """A function of the user's. Without a version it can only be used without a run directory."""

    function: Any
    version: str | None = None

    @property
    def identity(self) -> str:
        """What configurations and manifests say of the function."""
        return "a function" if self.version is None else f"a function, version {self.version}"


def versioned(function: Any, version: Any) -> Versioned:
    """Give a function a version, so that runs with it can be stored and resumed.

    `tm.Sweep(directions={"mine": tm.versioned(f, "2")}, ...)`. Change the version whenever what the function returns
    changes: a run is resumed only with the same label and version, and nothing else of the function is compared.

    Raises:
        TiltmeterError: it is neither a function nor an object with a method `vector`, or the version is not a text.
    """
    if not (callable(function) or callable(getattr(function, "vector", None))):
        raise TiltmeterError(f"versioned() was given a {type(function).__name__}; expected a function.")
    if not (isinstance(version, str) and version.strip()):
        raise TiltmeterError(f'The version was {version!r}; expected a text that is not empty, such as "1".')
    return Versioned(function, version)


def refuse_unversioned(what: str, functions: Mapping[str, Versioned]) -> None:
    """Refuse to store a run with functions that have no version.

    Args:
        what: `direction` or `readout`.
        functions: the functions by their labels.

    Raises:
        TiltmeterError: one has none.
    """
    for label, one in functions.items():
        if one.version is None:
            raise TiltmeterError(
                f"The {what} {label} is a function, which cannot be compared when the run is resumed; give it a "
                f'version, {{{label!r}: tm.versioned(f, "1")}}, or measure without a run directory, out=None.'
            )
