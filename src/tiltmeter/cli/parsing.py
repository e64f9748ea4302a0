"""Texts of options, turned into values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tiltmeter.errors import TiltmeterError

MAX_NUMBERS = 100_000
"""A START:STOP:STEP of more numbers than this is taken for a typing error."""


def numbers(text: str) -> list[float]:
    """Parse `0,1,5` or `0:50:5` (stop included).

    Raises:
        TiltmeterError: the text has neither form, or means more than `MAX_NUMBERS` numbers.
    """
    import numpy as np

    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if not 0 <= (stop - start) / step < MAX_NUMBERS:
                raise ValueError
            return [float(value) for value in np.arange(start, stop + step / 2, step)]
        return [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise TiltmeterError(
            f"{text!r} was not understood; give numbers with commas (0,1,5) or START:STOP:STEP (0:50:5)."
        ) from None


def with_options(saes: Sequence[str] | None, options: Sequence[str] | None) -> list[str]:
    """The names of SAEs with these options after each: `FILE?k=32&activation=topk`.

    Raises:
        TiltmeterError: there are options, and no SAE.
    """
    if options and not saes:
        raise TiltmeterError(f"--sae-option {options[0]} was given without --sae; give the SAE, or leave it out.")
    added = "&".join(options or ())
    return [f"{name}{'&' if '?' in name else '?'}{added}" if added else name for name in saes or ()]


def relative_precision(text: str | None) -> float | None:
    """Parse `2%`, `2 %` or `0.02`; None stays None.

    Raises:
        TiltmeterError: the text is not a number, or the number is not above 0 and at most a half.
    """
    if text is None:
        return None
    number, percent, rest = text.partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if rest.strip() or not 0 < value <= 0.5:
        raise TiltmeterError(
            f"--until-ci {text!r} is not a valid relative precision; give more than 0 and at most a half, "
            "such as 2% or 0.02."
        )
    return value


def path_of(lengths: str, unit: str, angles: str, substitute: bool) -> dict[str, Any]:
    """The configuration of the one path that `--lengths`, `--angles` or `--substitute` describe.

    Raises:
        TiltmeterError: none or several of them are given, or a unit without lengths.
    """
    if [bool(lengths), bool(angles), substitute].count(True) != 1:
        raise TiltmeterError("Give one of --lengths, --angles and --substitute, and only one.")
    if unit != "absolute" and not lengths:
        raise TiltmeterError(f"--unit {unit} is for --lengths; --angles are in degrees, and --substitute has no unit.")
    if substitute:
        return {"kind": "substitute"}
    if angles:
        return {"kind": "sphere", "degrees": numbers(angles)}
    return {"kind": "straight", "lengths": numbers(lengths), "unit": unit}


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None; a configuration has its own defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}
