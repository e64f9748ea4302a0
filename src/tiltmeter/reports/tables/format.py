"""Formatting shared by all tables: numbers with intervals, and which of many rows are shown."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int


def with_interval(mean: float, low: float = math.nan, high: float = math.nan) -> str:
    """Format as `1.23 [1.10, 1.38]` to three digits, or the number alone if it has no interval."""
    if math.isnan(mean):
        return "not measured"
    shown = [f"{value:#.3g}".rstrip(".") for value in (mean, low, high)]
    return shown[0] if math.isnan(low) or math.isnan(high) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def three_digits(value: float) -> str:
    """Format a number to three significant digits."""
    return "undefined" if math.isnan(value) else f"{value:.3g}"


def evenly(number: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Choose at most this many evenly spaced row indices, always including the first and the last."""
    return np.unique(np.linspace(0, max(number - 1, 0), min(number, most)).round().astype(int))
