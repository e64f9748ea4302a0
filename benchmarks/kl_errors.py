"""Relative error of KL against float64, by the size of KL."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

DECADES = range(-10, 2)
"""Exponents k of the decades; decade k reaches from 10^(k - 1/2) to 10^(k + 1/2)."""

MIN_VALUES = 10
"""A decade with fewer values is not reported."""


@dataclass(frozen=True)
class DecadeError:
    """Relative errors of the KLs of one decade: their number, median and 99th percentile."""

    decade: int
    values: int
    median: float
    p99: float


def errors_by_decade(found: Tensor, exact: Tensor) -> list[DecadeError]:
    """Relative errors |found - exact| / exact, by the decade of exact.

    Args:
        found: the KLs of a contender, of any shape.
        exact: the same KLs in float64.
    """
    found, exact = found.double().flatten(), exact.flatten()
    relative = (found - exact).abs() / exact
    result = []
    for decade in DECADES:
        here = relative[(exact.log10() - decade).abs() <= 0.5]
        if len(here) >= MIN_VALUES:
            result.append(DecadeError(decade, len(here), float(here.median()), float(here.quantile(0.99))))
    return result
