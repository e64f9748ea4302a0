"""How often 95 % intervals contain the true value: the tables of docs/definitions.md.

    python scripts/interval_coverage.py

Values are independent: normal, exponential, exp(g) with g normal (lognormal: a long tail, as the KLs have),
or Student's t with three degrees of freedom (symmetric with heavy tails). The first table compares ways to an interval
of a mean; the second has the interval that `tiltmeter.analysis.estimates` shows for other numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from scipy import stats

from tiltmeter.analysis.estimates import ABOVE_ZERO, estimate
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.studies.estimands import correlation, difference, ratio

SEQUENCES = (2, 4, 8, 10, 12, 16, 32, 192)

DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], Float64[np.ndarray, "run n"]], float]]
DISTRIBUTIONS = {
    "normal": (lambda rng, shape: rng.standard_normal(shape), 0.0),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "lognormal": (lambda rng, shape: np.exp(rng.standard_normal(shape)), float(np.exp(0.5))),
    "t3": (lambda rng, shape: rng.standard_t(3, shape), 0.0),
}
"""Each distribution's sampler and mean."""

Bounds = tuple[Float64[np.ndarray, " run"], Float64[np.ndarray, " run"]]


def ours(values: Float64[np.ndarray, "run n"]) -> Bounds:
    """The interval of `mean_interval`: Student's, widened for skewness."""
    found = mean_interval(values)
    return found.low, found.high


def student(values: Float64[np.ndarray, "run n"]) -> Bounds:
    """Student's interval."""
    n, mean = values.shape[-1], values.mean(axis=-1)
    half = stats.t.ppf(0.975, n - 1) * values.std(axis=-1, ddof=1) / np.sqrt(n)
    return mean - half, mean + half


def bca(values: Float64[np.ndarray, "run n"]) -> Bounds:
    """Efron's bias-corrected and accelerated interval (1987), of 1,999 draws."""
    with np.errstate(all="ignore"):
        found = stats.bootstrap(
            (np.arange(values.shape[-1]),),
            lambda drawn, axis: _counts(drawn.reshape(-1, drawn.shape[axis]), values).reshape(
                len(values), *drawn.shape[:-1]
            ),
            vectorized=True,
            n_resamples=1999,
            rng=np.random.default_rng(0),
        ).confidence_interval
    return found.low, found.high


def _counts(drawn: np.ndarray, values: Float64[np.ndarray, "run n"]) -> Float64[np.ndarray, "run draw"]:
    """Means of all draws, from how often each value was drawn."""
    n = values.shape[-1]
    return values @ np.stack([np.bincount(row, minlength=n) for row in drawn]).T / drawn.shape[-1]


def bootstrap_t(values: Float64[np.ndarray, "run n"]) -> Bounds:
    """The bootstrapped t (Efron 1981, Hall 1988), of 1,999 draws."""
    n, mean = values.shape[-1], values.mean(axis=-1)
    centred, error = values - mean[:, None], values.std(axis=-1, ddof=1) / np.sqrt(n)
    drawn = np.random.default_rng(0).integers(0, n, (1999, n))
    means = _counts(drawn, centred)
    spread = np.sqrt(np.maximum(_counts(drawn, centred**2) - means**2, 0) / (n - 1))
    with np.errstate(all="ignore"):
        ranked = np.sort(np.where(spread > 1e-9 * error[:, None], means / spread, np.sign(means) * np.inf), axis=-1)
    return mean - ranked[:, -50] * error, mean - ranked[:, 49] * error


METHODS = {"Student": student, "BCa": bca, "bootstrap t": bootstrap_t, "ours": ours}


def coverage(name: str, n: int, method: Callable[..., Bounds] = ours, runs: int = 4000, seed: int = 0) -> float:
    """The fraction of simulated data sets whose interval contains the true mean."""
    sample, truth = DISTRIBUTIONS[name]
    low, high = method(sample(np.random.default_rng(seed), (runs, n)))
    return float(((low <= truth) & (truth <= high)).mean())


def other(name: str, n: int, runs: int = 500) -> float:
    """The same for a ratio of lognormal means, a difference of paired ones, or a correlation of normal tokens."""
    rng, hits = np.random.default_rng(n), 0
    for seed in range(runs):
        one, two = np.exp(rng.standard_normal((2, n)) * 0.7)
        tokens = rng.standard_normal((2, n, 8))
        quantity, truth = {
            "ratio": (ratio("", one, two), 1.0),
            "paired difference": (difference("", one, two), 0.0),
            "correlation": (correlation("", tokens[0], tokens[0] + tokens[1], ABOVE_ZERO), np.sqrt(0.5)),
        }[name]
        found = estimate(quantity, 1, seed)
        hits += found.low <= truth <= found.high
    return hits / runs


def main() -> None:
    """Print the tables."""
    columns = [f"{name}: {method}" for name in DISTRIBUTIONS for method in METHODS]
    print(f"| sequences | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for n in SEQUENCES:
        row = [coverage(name, n, method) for name in DISTRIBUTIONS for method in METHODS.values()]
        print(f"| {n} | {' | '.join(f'{found:.3f}' for found in row)} |", flush=True)
    print("\n| sequences | ratio | paired difference | correlation |\n|---|---|---|---|")
    for n in (10, 16, 32):
        row = [other(name, n) for name in ("ratio", "paired difference", "correlation")]
        print(f"| {n} | {' | '.join(f'{found:.3f}' for found in row)} |", flush=True)


if __name__ == "__main__":
    main()
