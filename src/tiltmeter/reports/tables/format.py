"""What all tables for readers share: how a number with its interval is written, and which of many rows are shown."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int


def with_interval(mean: float, low: float = math.nan, high: float = math.nan) -> str:
    """`1.23 [1.10, 1.38]`, to three digits; the number alone where it has no interval."""
    if math.isnan(mean):
        return "not measured"
    shown = [f"{value:#.3g}".rstrip(".") for value in (mean, low, high)]
    return shown[0] if math.isnan(low) or math.isnan(high) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def three_digits(value: float) -> str:
    """A number in a sentence."""
    return "undefined" if math.isnan(value) else f"{value:.3g}"


def evenly(number: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Indices of at most so many of a number of rows, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, max(number - 1, 0), min(number, most)).round().astype(int))
