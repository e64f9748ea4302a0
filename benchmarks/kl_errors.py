"""How right everyone's KL is, by its size."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

DECADES = range(-10, 2)
"""Powers of ten; a decade is centred on its, from 10^(k - 1/2) to 10^(k + 1/2)."""

FEWEST = 10
"""Values that a decade must have to be reported."""


@dataclass(frozen=True)
class Error:
    """Relative errors of the KLs of one size."""

    decade: int
    values: int
    median: float
    p99: float


def errors(found: Tensor, exact: Tensor) -> list[Error]:
    """Relative error against float64, by decade of KL."""
    found, exact = found.double().flatten(), exact.flatten()
    relative = (found - exact).abs() / exact
    result = []
    for decade in DECADES:
        here = relative[(exact.log10() - decade).abs() <= 0.5]
        if len(here) >= FEWEST:
            result.append(Error(decade, len(here), float(here.median()), float(here.quantile(0.99))))
    return result
