"""How often intervals contain the truth where sequences are cut from documents: tables of docs/definitions.md.

    python scripts/documents_coverage.py

Each value is normal, the sum of what its document has and what it has itself, so that two sequences of a document have
the correlation ρ; or the exponential of that (lognormal). The first table is of 95 % intervals of a mean over
sequences, by documents and as if sequences were independent. The second is of false decisions, with the interval that
decides, on a ratio of means that is 1 (lognormal values whose logarithms have the deviation 0.3). The third is of
time-uniform intervals, at all looks at once.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int

from decision_coverage import logs
from tiltmeter.analysis.confidence_sequences import sequential_mean
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.analysis.t_intervals import careful_t

TRUTHS = {"normal": 0.0, "lognormal": float(np.exp(0.5))}


def sample(
    name: str, n: int, each: int, rho: float, rng: np.random.Generator, runs: int
) -> tuple[Float64[np.ndarray, "run sequence"], Int[np.ndarray, " sequence"], float]:
    """Values of n sequences, `each` of them from one document; which document; and the true mean."""
    documents = np.arange(n) // each
    shared = rng.standard_normal((runs, documents[-1] + 1))[:, documents]
    values = np.sqrt(rho) * shared + np.sqrt(1 - rho) * rng.standard_normal((runs, n))
    return (np.exp(values) if name == "lognormal" else values), documents, TRUTHS[name]


def covered(name: str, n: int, each: int, rho: float, runs: int = 4000, documents: bool = True) -> float:
    """The fraction of simulated data sets whose interval contains the true mean, by documents or by sequences."""
    values, of_each, truth = sample(name, n, each, rho, np.random.default_rng(n + each), runs)
    found = mean_interval(values, documents=of_each if documents else None)
    return float(((found.low <= truth) & (truth <= found.high)).mean())


def unequal(name: str, rho: float, runs: int = 4000) -> tuple[float, float]:
    """Coverage for 192 sequences of 40 documents, half of which have one sequence, by documents and by sequences."""
    sizes = np.array([1] * 20 + [2] * 8 + [6] * 6 + [20] * 6)
    documents = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((runs, len(sizes)))[:, documents]
    values = np.sqrt(rho) * shared + np.sqrt(1 - rho) * rng.standard_normal(shared.shape)
    values = np.exp(values) if name == "lognormal" else values
    both = (mean_interval(values, documents=one) for one in (documents, None))
    by_documents, by_sequences = (
        float(((one.low <= TRUTHS[name]) & (TRUTHS[name] <= one.high)).mean()) for one in both
    )
    return by_documents, by_sequences


def decided(n: int, each: int, rho: float, comparisons: int, runs: int = 40_000) -> tuple[float, float]:
    """How often a ratio of means that is 1 is decided to be above or below 1, by documents and by sequences.

    Where documents have equally many sequences, a draw of documents is one of their sums.
    """
    rng = np.random.default_rng(each)
    one, other = (np.exp(0.3 * sample("normal", n, each, rho, rng, runs)[0]) for _ in range(2))
    found = []
    for size in (each, 1):
        count = n // size
        above, below = (part.reshape(runs, count, size).sum(-1) for part in (one, other))
        value, spread_of_logs = logs(above, below, n)
        low, high = careful_t(value, spread_of_logs, 1 - 0.05 / comparisons)
        found.append(float(((low > 0) | (high < 0)).mean()))
    return found[0], found[1]


def at_all_looks(name: str, documents: int, each: int, rho: float, runs: int = 400, by_documents: bool = True) -> float:
    """How often the time-uniform intervals contain the mean at all looks, every 16 sequences, in a random order."""
    rng, held = np.random.default_rng(each), 0
    for _ in range(runs):
        values, of_each, truth = sample(name, documents * each, each, rho, rng, 1)
        order = rng.permutation(documents * each)
        misses = False
        for n in range(128, len(order) + 1, 16):
            taken = order[:n]
            found = sequential_mean(values[0, taken], documents=of_each[taken] if by_documents else None)
            misses |= not found.low <= truth <= found.high
        held += not misses
    return held / runs


def main() -> None:
    """Print the tables."""
    names = list(TRUTHS)
    heads = [f"{name}: {by}" for name in names for by in ("documents", "sequences")]
    print(f"| sequences | of a document | ρ | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 3)}")
    for n in (192, 24):
        for each in (1, 2, 4, 8):
            for rho in (0.0, 0.1, 0.3, 0.5):
                row = [covered(name, n, each, rho, documents=by) for name in names for by in (True, False)]
                print(f"| {n} | {each} | {rho} | {' | '.join(f'{one:.3f}' for one in row)} |", flush=True)
    for rho in (0.0, 0.1, 0.3, 0.5):
        row = [one for name in names for one in unequal(name, rho)]
        print(f"| 192 | 1 to 20 | {rho} | {' | '.join(f'{one:.3f}' for one in row)} |", flush=True)
    heads = ["sequences", "of a document", "ρ", "comparisons", "nominal", "by documents", "by sequences"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for comparisons in (1, 40):
        for n, each, rho in ((192, 4, 0.3), (48, 4, 0.3), (192, 8, 0.5)):
            found = decided(n, each, rho, comparisons)
            cells = [f"{0.05 / comparisons:g}", *(f"{one:.4f}" for one in found)]
            print(f"| {n} | {each} | {rho} | {comparisons} | {' | '.join(cells)} |", flush=True)
    heads = ["documents", "sequences of each", "ρ", "lognormal: by documents", "by sequences"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for documents, each, rho in ((128, 8, 0.0), (128, 8, 0.3), (512, 2, 0.3), (32, 32, 0.3)):
        row = [at_all_looks("lognormal", documents, each, rho, by_documents=by) for by in (True, False)]
        print(f"| {documents} | {each} | {rho} | {' | '.join(f'{one:.3f}' for one in row)} |", flush=True)


if __name__ == "__main__":
    main()
