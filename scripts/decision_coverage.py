"""How often claims are decided whose ratio lies exactly at the border: a table of docs/definitions.md.

    python scripts/decision_coverage.py

Each cell is the frequency of a false "above" and of a false "below", divided by the nominal one; 1 is as designed, and
less is careful. The last rows are the power: how often a ratio of 2 is found to be above 1. Values are lognormal with
the deviation of their logarithm given, or Pareto with index 2.5 (no skewness exists).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from tiltmeter.analysis.estimates import RESAMPLES
from tiltmeter.analysis.t_intervals import Spread, careful_t, skewness

Values = Float64[np.ndarray, "run n"]
Sampler = Callable[[np.random.Generator, tuple[int, int]], Values]


def lognormal(sigma: float, mean: float = 1.0) -> Sampler:
    """exp(σ g), with this mean."""
    return lambda rng, shape: mean * np.exp(sigma * rng.standard_normal(shape) - sigma**2 / 2)


def pareto(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
    """Values with P(> v) ~ v^-2.5 and the mean 1."""
    return rng.random(shape) ** (-1 / 2.5) * 0.6


WORLDS: dict[str, tuple[Sampler, Sampler]] = {
    "0.3 ÷ 0.3": (lognormal(0.3), lognormal(0.3)),
    "1 ÷ 0.3": (lognormal(1), lognormal(0.3)),
    "1.5 ÷ 0.3": (lognormal(1.5), lognormal(0.3)),
    "Pareto ÷ 0.3": (pareto, lognormal(0.3)),
    "0.3 ÷ 1": (lognormal(0.3), lognormal(1)),
    "0.3 ÷ 1.5": (lognormal(0.3), lognormal(1.5)),
    "0.3 ÷ Pareto": (lognormal(0.3), pareto),
    "1.5 ÷ 1.5": (lognormal(1.5), lognormal(1.5)),
}

CLEAR = {"0.3, ratio 2": (lognormal(0.3, 2), lognormal(0.3)), "0.5, ratio 2": (lognormal(0.5, 2), lognormal(0.5))}


def logs(one: Values, other: Values, seed: int) -> tuple[np.ndarray, Spread]:
    """Each run's log ratio, its bootstrapped standard error times √n, and its skewness by the jackknife."""
    runs, n = one.shape
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    counts = np.stack([np.bincount(row, minlength=n) for row in drawn]).T.astype(float)
    parts = np.array_split(np.arange(runs), max(1, runs // 1000))
    error = np.concatenate([np.log((one[part] @ counts) / (other[part] @ counts)).std(-1, ddof=1) for part in parts])
    without = np.log((one.sum(-1, keepdims=True) - one) / (other.sum(-1, keepdims=True) - other))
    skew = skewness(without.mean(-1, keepdims=True) - without)
    return np.log(one.sum(-1) / other.sum(-1)), Spread(error * n / np.sqrt(n - 1), skew, n, float(n - 1))


def decided(world: tuple[Sampler, Sampler], n: int, runs: int, comparisons: tuple[int, ...]) -> list[dict[str, float]]:
    """Frequencies of "above 1" and "below 1"."""
    rng = np.random.default_rng(n)
    value, found = logs(world[0](rng, (runs, n)), world[1](rng, (runs, n)), n)
    rows = []
    for number in comparisons:
        low, high = careful_t(value, found, 1 - 0.05 / number)
        rows.append({"above": float((low > 0).mean()), "below": float((high < 0).mean())})
    return rows


def main(runs: int = 40_000, comparisons: tuple[int, ...] = (1, 20, 40)) -> None:
    """Print the tables."""
    heads = [f"{number}: above, below" for number in comparisons]
    print(f"| sequences | deviations of logs | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 2)}")
    for n in (12, 24, 48, 192):
        for name, world in WORLDS.items():
            cells = []
            for number, row in zip(comparisons, decided(world, n, runs, comparisons), strict=True):
                times = {key: f"{value / (0.025 / number):.1f}" for key, value in row.items()}
                cells.append(f"{times['above']}, {times['below']}")
            print(f"| {n} | {name} | {' | '.join(cells)} |", flush=True)
    for n in (12, 24, 48, 192):
        for name, world in CLEAR.items():
            rows = decided(world, n, 4000, comparisons)
            cells = [f"{row['above']:.2f}" for row in rows]
            print(f"| {n} | {name}: power | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
