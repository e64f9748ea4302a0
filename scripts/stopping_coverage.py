"""Coverage and cost of time-uniform intervals: the table of docs/stopping.md.

    python scripts/stopping_coverage.py

Values are exp(σ g) with g normal: positive with a long tail, like the KLs of sequences. Their skewness is 0.8 at σ =
0.25, 1.8 at σ = 0.5, 6 at σ = 1 and 33 at σ = 1.5. Simulated runs look at them after every shard of 16 and stop as
`tiltmeter sweep --until-ci` does. The naive rule is shown for comparison: Student's 95 % interval of the values so far,
as if their number had been fixed in advance. The last table has values that are nearly equal but for rare large ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy import stats

from tiltmeter.analysis.confidence_sequences import FIRST_LOOK, half_width

SHARD = 16

Reach = Callable[[Int[np.ndarray, " look"], Float64[np.ndarray, "run look"]], Float64[np.ndarray, "run look"]]


class Looks(NamedTuple):
    """State of the simulated runs after every shard, from the first look on."""

    n: Int[np.ndarray, " look"]
    mean: Float64[np.ndarray, "run look"]
    deviation: Float64[np.ndarray, "run look"]
    truth: float


class Ending(NamedTuple):
    """Outcome of the runs of one stopping rule."""

    covered: float
    """Fraction of runs whose interval at the stop contains the true mean."""
    always: float
    """Fraction of runs whose intervals at all looks contain it."""
    sequences: float
    """Mean number of sequences per run."""


def simulate(sigma: float, most: int, runs: int, seed: int = 0, fewest: int = FIRST_LOOK) -> Looks:
    """Simulate runs of lognormal values with median 1. σ = 0 stands for normal ones with mean and deviation 1."""
    rng = np.random.default_rng(seed)
    n = np.arange(SHARD, most + 1, SHARD)
    sums, squares = np.empty((2, runs, len(n)))
    for block in np.array_split(np.arange(runs), max(1, runs * most // 2**22)):  # 32 MB at once
        values = rng.standard_normal((len(block), len(n), SHARD))
        values = np.exp(sigma * values) if sigma else 1 + values
        sums[block], squares[block] = values.sum(-1).cumsum(-1), (values**2).sum(-1).cumsum(-1)
    mean, seen = sums / n, n >= fewest
    deviation = np.sqrt(np.maximum(squares - n * mean**2, 0) / (n - 1))
    return Looks(n[seen], mean[:, seen], deviation[:, seen], float(np.exp(sigma**2 / 2)))


def spikes(rare: float, noise: float, runs: int, most: int = 4096, seed: int = 0) -> Looks:
    """Simulate runs of 1 + noise g + 50 b, g normal, with b = 1 in a fraction `rare` of the values and else 0."""
    rng = np.random.default_rng(seed)
    n = np.arange(SHARD, most + 1, SHARD)
    values = 1 + noise * rng.standard_normal((runs, len(n), SHARD)) + 50 * (rng.random((runs, len(n), SHARD)) < rare)
    mean = values.sum(-1).cumsum(-1) / n
    squares = (values**2).sum(-1).cumsum(-1)
    deviation = np.sqrt(np.maximum(squares - n * mean**2, 0) / (n - 1))
    deviation[deviation < 1e-6] = 0.0  # rounding of equal values
    seen = n >= FIRST_LOOK
    return Looks(n[seen], mean[:, seen], deviation[:, seen], 1 + 50 * rare)


def student(n: Int[np.ndarray, " look"], deviation: Float64[np.ndarray, "run look"]) -> Float64[np.ndarray, "run look"]:
    """Half-width of Student's 95 % interval, which assumes a number of values fixed in advance."""
    return stats.t.ppf(0.975, n - 1) * deviation / np.sqrt(n)


def ending(looks: Looks, until_ci: float, half: Reach) -> Ending:
    """Stop each run at the first look where its half-width is at most this fraction of its mean, else at the last."""
    width = half(looks.n, looks.deviation)
    holds: Bool[np.ndarray, "run look"] = np.abs(looks.mean - looks.truth) <= width
    known = (width > 0) & (width <= until_ci * np.abs(looks.mean))  # equal values are not a known mean
    stop = np.where(known.any(-1), known.argmax(-1), known.shape[-1] - 1)
    return Ending(
        float(holds[np.arange(len(stop)), stop].mean()), float(holds.all(-1).mean()), float(looks.n[stop].mean())
    )


def main(runs: int = 4000) -> None:
    """Print the tables."""
    print(f"| σ | until | holds where it stops | sequences | naive: holds | sequences |\n{'|--:' * 6}|")
    for sigma, goals, most in ((0.25, (0.02, 0.05), 4096), (0.5, (0.05, 0.1), 2048), (1.0, (0.1, 0.2, 0.5), 4096)):
        table(simulate(sigma, most, runs), sigma, goals)
    table(simulate(1.5, 4096, runs), 1.5, (0.2, 0.5))
    print(f"\n| σ | holds at all looks from {FIRST_LOOK} to 4,096 | naive |\n{'|--:' * 3}|")
    for sigma in (0, 0.25, 0.5, 1.0, 1.5):
        looks = simulate(sigma, 4096, runs)
        ours, naive = (ending(looks, 0.5, half).always for half in (half_width, student))
        print(f"| {sigma or 'normal'} | {ours:.3f} | {naive:.3f} |")
    print(f"\n| first look (σ = 1.5, until 50 %) | holds where it stops |\n{'|--:' * 2}|")
    for fewest in (32, 64, FIRST_LOOK, 256):
        print(f"| {fewest} | {ending(simulate(1.5, 1024, 4 * runs, fewest=fewest), 0.5, half_width).covered:.3f} |")
    print(f"\n| 50 in a fraction | noise | until | holds where it stops | sequences |\n{'|--:' * 5}|")
    for rare, noise in ((0.01, 0.0), (0.01, 0.1), (0.03, 0.1), (0.1, 0.1)):
        for goal in (0.1, 0.5):
            end = ending(spikes(rare, noise, runs), goal, half_width)
            print(f"| {rare} | {noise} | {100 * goal:g} % | {end.covered:.3f} | {end.sequences:,.0f} |")


def table(looks: Looks, sigma: float, goals: tuple[float, ...]) -> None:
    """Print the rows of one σ."""
    for goal in goals:
        ours, naive = ending(looks, goal, half_width), ending(looks, goal, student)
        print(
            f"| {sigma} | {100 * goal:g} % | {ours.covered:.3f} | {ours.sequences:,.0f} | {naive.covered:.3f} "
            f"| {naive.sequences:,.0f} |"
        )


if __name__ == "__main__":
    main()
