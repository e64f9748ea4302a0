"""Values of options, checked without the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiltmeter.cli.catalogue import choices
from tiltmeter.errors import TiltmeterError, did_you_mean
from tiltmeter.perturb.steps import check_angles, check_lengths


def one_of(option: str, value: str | None, values: Sequence[str]) -> None:
    """Refuse a value that an option does not take; None was not given.

    Raises:
        TiltmeterError: the message names the nearest, and all.
    """
    if value is not None and value not in values:
        raise TiltmeterError(f"{option} was {value!r}{did_you_mean(value, values)}; choose from {', '.join(values)}.")


def at_least_one(**counts: int | None) -> None:
    """Refuse counts below one; None was not given.

    Raises:
        TiltmeterError: one is.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise TiltmeterError(f"--{name.replace('_', '-')} was {count}, expected at least 1.")


def check_path(path: dict[str, Any]) -> None:
    """Refuse lengths and angles that no path has.

    Raises:
        TiltmeterError: one is out of range or listed twice, or the unit is none.
    """
    one_of("--unit", path.get("unit"), choices("unit"))
    try:
        check_lengths(path.get("lengths", ()))
        check_angles(path.get("degrees", ()))
    except ValueError as error:
        raise TiltmeterError(f"--{'lengths' if 'lengths' in path else 'angles'}: {error}.") from None
