"""How often an order is decided that lies exactly at the border: a table of docs/definitions.md.

    python scripts/order_coverage.py

Things have normal effects, with a trend such that two of them are in the claimed order with odds of exactly the margin.
Each cell is the frequency of a false "in order" and of a false "not in order", divided by the nominal one.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq

from tiltmeter.analysis.clusters import spread
from tiltmeter.analysis.estimates import NO_EFFECT, estimate
from tiltmeter.analysis.t_intervals import student_t
from tiltmeter.studies.margins import MORE_OFTEN
from tiltmeter.studies.orders import in_order

RUNS, CHECKED = 100_000, 200_000


def effects(rng: np.random.Generator, runs: int, things: int, trend: float) -> Float64[np.ndarray, "thing run"]:
    """Effects of things, the first the strongest on average."""
    return rng.standard_normal((things, runs)) + trend * np.arange(things)[::-1, None]


def parts(drawn: Float64[np.ndarray, "thing run"]) -> Float64[np.ndarray, " run"]:
    """The fraction of pairs in order."""
    return np.asarray(np.mean([one > other for one, other in combinations(drawn, 2)], axis=0))


def at_border(things: int) -> float:
    """The trend at which the fraction is the border of the region, on average."""

    def beyond(trend: float) -> float:
        return float(parts(effects(np.random.default_rng(0), CHECKED, things, trend)).mean() - MORE_OFTEN.low)

    return float(brentq(beyond, 0.0, 1.0, xtol=1e-4))


def joint(rows: Float64[np.ndarray, "run n"], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The deciding interval of each run: Student's, with one more sequence in no order."""
    more = np.concatenate([rows, np.full((len(rows), 1), NO_EFFECT["order"])], 1)
    return student_t(more.mean(1), spread(more, None), level)


def check() -> None:
    """The vectorised interval is that of the package."""
    drawn = effects(np.random.default_rng(1), 30, 3, 0.2)
    found = estimate(in_order("check", list(drawn)), 20)
    low, high = joint(parts(drawn)[None], 1 - 0.05 / 20)
    np.testing.assert_allclose((found.joint_low, found.joint_high), (low[0], high[0]))


def main(comparisons: tuple[int, ...] = (1, 20, 40)) -> None:
    """Print the table."""
    check()
    heads = [f"{number}: in order, not" for number in comparisons]
    print(f"| sequences | SAEs | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 2)}")
    for things in (3, 6):
        trend = at_border(things)
        for n in (12, 40):
            rng = np.random.default_rng(n)
            rows = np.stack([parts(effects(rng, RUNS, things, trend)) for _ in range(n)], 1)
            cells = []
            for number in comparisons:
                (low, high), nominal = joint(rows, 1 - 0.05 / number), 0.025 / number
                above, below = (low >= MORE_OFTEN.low).mean(), (high < MORE_OFTEN.low).mean()
                cells.append(f"{above / nominal:.1f}, {below / nominal:.1f}")
            print(f"| {n} | {things} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
