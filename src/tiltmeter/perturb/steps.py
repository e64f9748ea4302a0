"""Which steps a path can have."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_lengths(lengths: Sequence[float]) -> None:
    """Refuse what are no lengths.

    Raises:
        ValueError: one is negative or not finite, or listed twice.
    """
    if bad := [value for value in lengths if not math.isfinite(value) or value < 0]:
        raise ValueError(f"a length is {bad[0]}; lengths must be finite and not negative")
    _refuse_repeated(lengths)


def check_angles(degrees: Sequence[float]) -> None:
    """Refuse what are no angles from a direction to its opposite.

    Raises:
        ValueError: one is outside 0 to 180 degrees, or listed twice.
    """
    if bad := [value for value in degrees if not 0 <= value <= 180]:
        raise ValueError(f"an angle is {bad[0]}; angles must be degrees from 0 to 180")
    _refuse_repeated(degrees)


def _refuse_repeated(steps: Sequence[float]) -> None:
    if len(set(steps)) < len(steps):
        raise ValueError("a step is listed twice; list each once")
