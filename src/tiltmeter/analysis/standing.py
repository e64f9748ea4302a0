"""Whether a vector is special: where its curve stands among the curves of random vectors of several kinds.

A vector's curve is its mean readout over tokens, at each length. Each baseline is a set of random vectors, measured on
the same tokens at the same lengths. The p-value against a baseline is that of the whole curve (`extreme_rank_p`). A
vector is special if it differs from every baseline, so its p-value is the largest of these (Berger 1982, intersection-
union test), and no correction is needed for the number of baselines. It is multiplied by the number of vectors that are
tested, counting both signs (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from tiltmeter.analysis.ranks import Extremes, extreme_rank_p, extremes, percentile, rank_p, ratio_of_means

LEVEL = 0.05

MINUS = "minus-"
"""Before the label of a vector: its opposite."""

PERMUTATION, FEATURE = "permutation", "sae-feature"

SIGNED = (PERMUTATION, FEATURE)
"""Baselines with draws of two signs: the effect of a decoder's row need not be that of its opposite, so a vector is
compared with rows, and its opposite with opposites of rows. The others have as often one sign as the other."""

Values = Float[np.ndarray, "step sequence"]
BaselineValues = Float[np.ndarray, "draw step sequence"]


def with_opposites(vectors: Sequence[str]) -> tuple[str, ...]:
    """The vectors and their opposites."""
    return tuple(name for label in vectors for name in (label, MINUS + label))


def stem(baseline: str, vector: str, vectors: Sequence[str]) -> str:
    """What the draws of a baseline that a vector, or its opposite, is compared with are called, before their number."""
    label = vector if vector in vectors else vector.removeprefix(MINUS)
    sign = MINUS if label != vector and baseline in SIGNED else ""
    return f"{sign}{baseline}:{label}#" if baseline == PERMUTATION else f"{sign}{baseline}#"


def draws_among(directions: Sequence[str], stem: str) -> list[int]:
    """Which directions are draws with this stem."""
    return [at for at, name in enumerate(directions) if name.startswith(stem) and name.removeprefix(stem).isdigit()]


def draws_needed(tested: int) -> int:
    """How many draws let every one of so many tests decide.

    With one length, and with several wherever one draw has the smallest value at all of them, a curve above all draws
    is no more extreme than the one below all others, so its p-value is 2 / (draws + 1).
    """
    return math.ceil(2 * tested / LEVEL) - 1


class Verdict(NamedTuple):
    """Whether a vector differs from every baseline."""

    vector: str
    p: float
    """The largest p-value among the baselines, multiplied by the number of vectors tested; at most 1."""
    differs: bool
    """Whether it differs from every baseline at the 5 % level."""
    sentence: str


def standing_table(
    values: Values, baselines: Mapping[str, BaselineValues], steps: Float[np.ndarray, " step"]
) -> pd.DataFrame:
    """Where a vector stands among the draws of each baseline, at each step.

    Returns:
        Columns `baseline`, `step`; `mean` and `median` of the vector over sequences, `baseline_mean` and
        `baseline_median` (of the draws' means and medians, their mean); `percentile` of the vector's mean among the
        draws' means, and `p`, two-sided, of this step alone; `median_percentile`, the same of medians; `ratio` of the
        means, with `ratio_low` and `ratio_high`, its 95 % interval; `share`, the fraction of sequences on which the
        vector's value is above the median draw's.
    """
    rows = []
    for name, draws in baselines.items():
        for at, step in enumerate(steps):
            own, others = values[at], draws[:, at]
            means, medians = np.nanmean(others, axis=1), np.nanmedian(others, axis=1)
            ratio, low, high = ratio_of_means(own, others)
            kept = ~(np.isnan(own) | np.isnan(others).any(axis=0))
            rows.append(
                {
                    "baseline": name,
                    "step": float(step),
                    "mean": float(np.nanmean(own)),
                    "median": float(np.nanmedian(own)),
                    "baseline_mean": float(means.mean()),
                    "baseline_median": float(medians.mean()),
                    "percentile": percentile(float(np.nanmean(own)), means),
                    "median_percentile": percentile(float(np.nanmedian(own)), medians),
                    "p": rank_p(float(np.nanmean(own)), means),
                    "ratio": ratio,
                    "ratio_low": low,
                    "ratio_high": high,
                    "share": float((own > np.median(others, axis=0))[kept].mean()),
                }
            )
    return pd.DataFrame(rows)


class CurveTest(NamedTuple):
    """A vector's curve against the draws of one baseline."""

    baseline: str
    p: float
    where: Extremes
    draws: int


def curve_tests(values: Values, baselines: Mapping[str, BaselineValues]) -> list[CurveTest]:
    """Test the vector's mean curve against the mean curves of each baseline's draws."""
    own = np.nanmean(values, axis=1)
    found = []
    for name, draws in baselines.items():
        others = np.nanmean(draws, axis=2)
        found.append(CurveTest(name, extreme_rank_p(own, others), extremes(own, others), len(others)))
    return found


def verdict(vector: str, tests: list[CurveTest], table: pd.DataFrame, tested: int, sequences: int) -> Verdict:
    """Whether a vector differs from every baseline, in a sentence that says how much and of how many draws.

    Args:
        vector: its name.
        tests: its tests against the baselines.
        table: its `standing_table`.
        tested: how many vectors are tested, counting both signs.
        sequences: how many sequences were measured.
    """
    p = min(1.0, tested * max(test.p for test in tests))
    least = min(test.draws for test in tests)
    differs = p <= LEVEL
    told = f"{tested} tests, {least} draws per baseline, {sequences} sequences"
    if differs:
        return Verdict(vector, p, differs, f"{_differs(vector, tests, table)} (p = {p:.2g}, {told}).")
    if least < (enough := draws_needed(tested)):
        what = f"{vector}: no verdict is possible at the 5 % level; {enough} draws of each baseline are enough"
        few = [f"{test.draws} of {test.baseline}" for test in tests if test.draws == least]
        short = "" if len(few) == len(tests) else f", and there are only {', '.join(few)}"
        return Verdict(vector, p, differs, f"{what}{short} ({told}).")
    alike = [test.baseline for test in tests if tested * test.p > LEVEL]
    which = "any baseline" if len(alike) == len(tests) else ", ".join(alike)
    return Verdict(vector, p, differs, f"{vector} is not told apart from {which} ({told}).")


def _differs(vector: str, tests: list[CurveTest], table: pd.DataFrame) -> str:
    """On which side of each baseline the vector is, and by how much it differs from the one that is nearest.

    All of this is said of the lengths at which it is most extreme: elsewhere it may be on the other side.
    """
    more = [test.baseline for test in tests if not test.where.below]
    less = [test.baseline for test in tests if not test.where.above]
    both = [test.baseline for test in tests if test.where.above and test.where.below]
    ends = table[table.step == table.step.max()].sort_values("baseline_mean").baseline
    nearest = ends.iloc[0 if len(less) == len(tests) else -1]
    (last,) = (test.where.last for test in tests if test.baseline == nearest)
    row = table[table.baseline == nearest].iloc[last]
    size = (
        f"at length {row.step:g} its mean KL is {row.ratio:.3g} [{row.ratio_low:.3g}, {row.ratio_high:.3g}] times "
        f"that of {nearest}"
    )
    for side, those in (("more", more), ("less", less)):
        if len(those) == len(tests):
            return f"{vector} changes the output {side} than every baseline: {size}"
    parts = [f"{side} than {', '.join(those)}" for side, those in (("more", more), ("less", less)) if those]
    if both:
        parts.append(f"more at some lengths and less at others than {', '.join(both)}")
    return f"{vector} changes the output {', but '.join(parts)}: {size}"
