"""What users type, turned into what runs."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltmeter.errors import TiltmeterError

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.runs.config import Configuration
    from tiltmeter.sweeps.crossings import Crossings
    from tiltmeter.sweeps.plan import Sweep

MOST_NUMBERS = 100_000
"""No START:STOP:STEP means more."""

AT_MOST = 16_000
"""Sequences that `--until-ci` takes at most where none are asked for: of 128 tokens, the two millions of Lee &
Heimersheim 2024."""


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


def share(text: str | None) -> float | None:
    """`2%`, `2 %` or `0.02`: a share of the mean, from above 0 to a half; None stays None."""
    if text is None:
        return None
    number, percent, rest = text.partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if rest.strip() or not 0 < value <= 0.5:
        raise TiltmeterError(
            f"--until-ci {text!r} is no share of a mean; give more than 0 and at most a half, such as 2% or 0.02."
        )
    return value


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


def given(**options: Any) -> dict[str, Any]:
    """Those options that have a value; the others keep their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def sweep_of(config: dict[str, Any], **options: Any) -> Sweep:
    """A sweep of this configuration and the options that were given, its names looked up as far as files tell.

    That is before a model is loaded for nothing.
    """
    from tiltmeter.perturb.bases import check_base_name
    from tiltmeter.saes.loading import refuse_unknown
    from tiltmeter.saes.names import short_names
    from tiltmeter.sweeps.plan import Sweep, look_up

    sweep = Sweep(**config | given(**options))
    for name in sweep.saes:
        refuse_unknown(name)
    names = tuple(short_names(sweep.saes))
    if not any("*" in name for name in names):  # what a pattern means depends on the site
        look_up(sweep.directions, names)
        check_base_name(sweep.base, names)
    return sweep


def crossings_of(sweep: Sweep, **options: Any) -> Crossings:
    """Crossings of this sweep's curves, by the options that were given."""
    from tiltmeter.analysis.bisection import CrossingTarget
    from tiltmeter.sweeps.crossings import Crossings

    return Crossings(sweep=sweep, goal=CrossingTarget(**given(**options)))


def layer_of(layer: int | None, n_layers: int, model: str) -> int:
    """The layer asked for, or the middle one."""
    if layer is None:
        return n_layers // 2
    if not 0 <= layer < n_layers:
        raise TiltmeterError(f"Layer {layer} was asked for, but {model} has layers 0 to {n_layers - 1}.")
    return layer


def run_folder(name: str, config: Configuration, model: str, tokens: TokenSet) -> Path:
    """A run directory of its own for each configuration: the same command finds it again."""
    told_apart = hashlib.sha256(f"{config.model_dump_json()}/{model}/{tokens.sha256()}".encode()).hexdigest()
    return Path("runs") / f"{name}-{told_apart[:8]}"
