"""What users type, turned into what runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltmeter.errors import TiltmeterError

if TYPE_CHECKING:
    from tiltmeter.plan import Sweep
    from tiltmeter.tokens import TokenSet

MOST_NUMBERS = 100_000
"""No START:STOP:STEP means more."""


def numbers(text: str) -> list[float]:
    """`0,1,5` or `0:50:5` (stop included)."""
    import numpy as np

    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if not 0 <= (stop - start) / step < MOST_NUMBERS:
                raise ValueError
            return [float(value) for value in np.arange(start, stop + step / 2, step)]
        return [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise TiltmeterError(
            f"{text!r} was not understood; give numbers with commas (0,1,5) or START:STOP:STEP (0:50:5)."
        ) from None


def path_of(lengths: str, unit: str, angles: str, substitute: bool) -> dict[str, Any]:
    """The configuration of the one path that was asked for."""
    if [bool(lengths), bool(angles), substitute].count(True) != 1:
        raise TiltmeterError("Give one of --lengths, --angles and --substitute, and only one.")
    if unit != "absolute" and not lengths:
        raise TiltmeterError(f"--unit {unit} is for --lengths; --angles are in degrees, and --substitute has none.")
    if substitute:
        return {"kind": "substitute"}
    if angles:
        return {"kind": "sphere", "degrees": numbers(angles)}
    return {"kind": "straight", "lengths": numbers(lengths), "unit": unit}


def checked(config_class: Any, config: dict[str, Any], **given: Any) -> Any:
    """A configuration of a pydantic class and the options that were given; pydantic complains in a sentence."""
    from pydantic import ValidationError

    try:
        return config_class.model_validate(config | {key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise TiltmeterError(f"{place} was {first['input']!r}: {message}." if place else f"{message}.") from None


def validated(config: dict[str, Any], **given: Any) -> Sweep:
    """A sweep of this configuration and the options that were given."""
    from tiltmeter.plan import Sweep, look_up
    from tiltmeter.saes.names import short_names

    sweep = checked(Sweep, config, **given)
    names = short_names(sweep.saes)
    if not any("*" in name for name in names):
        look_up(sweep.directions, tuple(names))  # before a model is loaded for nothing
    return sweep


def layer_of(layer: int | None, n_layers: int, model: str) -> int:
    """The layer asked for, or the middle one."""
    if layer is None:
        return n_layers // 2
    if not 0 <= layer < n_layers:
        raise TiltmeterError(f"Layer {layer} was asked for, but {model} has layers 0 to {n_layers - 1}.")
    return layer


def run_folder(name: str, sweep: Sweep, model: str, tokens: TokenSet) -> Path:
    """A run directory of its own for each configuration: the same command finds it again."""
    told_apart = hashlib.sha256(f"{sweep.model_dump_json()}/{model}/{tokens.sha256()}".encode()).hexdigest()
    return Path("runs") / f"{name}-{told_apart[:8]}"
