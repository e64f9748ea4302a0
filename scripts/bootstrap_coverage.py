"""How often bootstrapped 95 % intervals of a mean contain it: the table of docs/definitions.md.

    python scripts/bootstrap_coverage.py

Values are independent: normal, exponential, or exp(g) with g normal, which has a long tail as the KLs of sequences do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from tiltmeter.analysis.bootstrap import bootstrap_mean

SEQUENCES = (2, 4, 8, 16, 32, 192)

DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], Float64[np.ndarray, "run n"]], float]]
DISTRIBUTIONS = {
    "normal": (lambda rng, shape: rng.standard_normal(shape), 0.0),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "lognormal": (lambda rng, shape: np.exp(rng.standard_normal(shape)), float(np.exp(0.5))),
}
"""Each distribution's sampler and mean."""


def coverage(name: str, n: int, runs: int = 4000, seed: int = 0) -> float:
    """The fraction of simulated data sets whose interval contains the true mean."""
    sample, truth = DISTRIBUTIONS[name]
    found = bootstrap_mean(sample(np.random.default_rng(seed), (runs, n)))
    return float(((found.low <= truth) & (truth <= found.high)).mean())


def main() -> None:
    """Print the table."""
    print(f"| sequences | {' | '.join(DISTRIBUTIONS)} |\n|{'---|' * (len(DISTRIBUTIONS) + 1)}")
    for n in SEQUENCES:
        print(f"| {n} | {' | '.join(f'{coverage(name, n):.2f}' for name in DISTRIBUTIONS)} |")


if __name__ == "__main__":
    main()
