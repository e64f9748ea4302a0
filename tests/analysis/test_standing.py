"""Where a vector stands among baselines, and the verdict on it."""

import numpy as np
import pandas as pd
import pytest

from tiltmeter.analysis.ranks import Extremes
from tiltmeter.analysis.standing import (
    CurveTest,
    curve_tests,
    draws_among,
    standing_table,
    stem,
    verdict,
    with_opposites,
)

STEPS = np.array([0.5, 1.0])


def lognormal(*shape, seed=0):
    return np.exp(np.random.default_rng(seed).normal(size=shape))


def judged(factor, tested=2, draws=99, sequences=30, other=1.0):
    """A vector whose values are `factor` times those of the draws of one baseline, and of another times `other`."""
    tokens = lognormal(sequences)
    baselines = {
        "one": tokens * lognormal(draws, 1, 1, seed=1) ** 0.1 * lognormal(draws, 2, sequences, seed=2) ** 0.1,
        "two": other * tokens * lognormal(draws, 1, 1, seed=3) ** 0.1 * lognormal(draws, 2, sequences, seed=4) ** 0.1,
    }
    values = factor * np.tile(tokens, (2, 1))
    table = standing_table(values, baselines, STEPS)
    tests = curve_tests(values, baselines)
    return table, verdict("mine", tests, table, tested, sequences)


def test_a_vector_that_exceeds_every_baseline_is_special():
    table, found = judged(3.0)
    assert found.differs and found.p <= 4 / 100
    assert found.sentence.startswith("mine changes the output more than every baseline: at length 1 its mean KL is ")
    assert (table.percentile == 100).all() and (table.share == 1).all()
    assert table.ratio.between(2.5, 3.5).all()
    assert (table.ratio_low < table.ratio).all() and (table.ratio < table.ratio_high).all()


def test_less_is_special_too_and_sides_may_differ():
    assert judged(0.3)[1].sentence.startswith("mine changes the output less than every baseline")
    assert "more than one, but less than two" in judged(3.0, other=9.0)[1].sentence


def test_one_baseline_that_it_is_like_is_enough_to_be_not_special():
    found = judged(3.0, other=3.0)[1]
    assert not found.differs and "is not told apart from two" in found.sentence and found.p > 0.2
    assert "is not told apart from any baseline" in judged(1.0)[1].sentence


def test_too_few_draws_for_so_many_tests_are_said():
    found = judged(3.0, tested=6)[1]
    assert not found.differs and "no verdict is possible at the 5 % level; 239 draws of each baseline" in found.sentence
    assert judged(3.0, tested=6, draws=239)[1].differs


def test_a_draw_fewer_than_needed_is_said_even_of_a_vector_beyond_all_draws():
    table, found = judged(3.0, draws=78)
    assert (table.percentile == 100).all() and not found.differs
    assert "no verdict is possible at the 5 % level; 79 draws of each baseline are enough" in found.sentence


def test_the_baseline_that_has_too_few_draws_is_named():
    tests = [CurveTest("one", 0.02, Extremes(True, False, 0), 99), CurveTest("few", 0.1, Extremes(True, False, 0), 9)]
    sentence = verdict("mine", tests, pd.DataFrame(), 2, 30).sentence
    assert "79 draws of each baseline are enough, and there are only 9 of few (" in sentence


def curves_of(*means, sequences=4):
    """Values whose means over sequences are these, [step, sequence]."""
    return np.array(means, float)[:, None] * np.linspace(0.5, 1.5, sequences)


def test_the_size_in_a_sentence_is_that_at_a_length_where_the_side_is_as_said():
    draws = np.stack([curves_of(1 + i / 99, 1 + (i * 7 % 99) / 99) for i in range(99)])
    at_first = curves_of(9, 1.5)  # above all draws at the first length, in their midst at the last
    tests, table = curve_tests(at_first, {"one": draws}), standing_table(at_first, {"one": draws}, STEPS)
    sentence = verdict("mine", tests, table, 1, 4).sentence
    assert sentence.startswith("mine changes the output more than every baseline: at length 0.5 its mean KL is 6.0")
    crossing = curves_of(9, 0.1)
    tests, table = curve_tests(crossing, {"one": draws}), standing_table(crossing, {"one": draws}, STEPS)
    sentence = verdict("mine", tests, table, 1, 4).sentence
    assert sentence.startswith("mine changes the output more at some lengths and less at others than one: at length 1")


def test_of_baselines_the_nearest_is_quoted():
    values = curves_of(1, 1)
    for factor, nearest in ((5, "two"), (0.2, "one")):
        baselines = {
            "one": factor
            * np.stack([curves_of(1 + i / 990, 1 + i / 990) for i in range(99)])
            * (2 if factor > 1 else 1),
            "two": factor
            * np.stack([curves_of(1 + i / 990, 1 + i / 990) for i in range(99)])
            / (1 if factor > 1 else 2),
        }
        found = verdict("m", curve_tests(values, baselines), standing_table(values, baselines, STEPS), 2, 4)
        assert found.sentence.split(" (p =")[0].endswith(f"times that of {nearest}")


def test_the_table_says_what_ten_lines_say():
    rng = np.random.default_rng(0)
    values, draws = rng.exponential(size=(2, 5)), rng.exponential(size=(9, 2, 5))
    values[1, 3] = np.nan
    row = standing_table(values, {"b": draws}, STEPS).iloc[1]
    kept = [0, 1, 2, 4]
    assert row["mean"] == pytest.approx(values[1, kept].mean()) and row["median"] == np.median(values[1, kept])
    assert row.baseline_mean == pytest.approx(draws[:, 1].mean())
    means = draws[:, 1].mean(1)
    assert row.percentile == pytest.approx(100 * sum(mean < row["mean"] for mean in means) / 9)
    above = sum(mean >= row["mean"] for mean in means)
    assert row.p == pytest.approx(min(1, 2 * min(1 + above, 1 + 9 - above) / 10))
    share = [values[1, t] > sorted(draws[:, 1, t])[4] for t in kept]
    assert row.share == pytest.approx(np.mean(share))


def test_draws_are_found_by_their_names():
    names = ["a", "minus-a", "isotropic#0", "isotropic#1", "permutation:a#0", "minus-permutation:a#0"]
    names += ["permutation:ab#0", "sae-feature#0", "minus-sae-feature#0"]
    assert with_opposites(["a"]) == ("a", "minus-a")
    found = {
        vector: [
            draws_among(names, stem(one, vector, ["a", "ab"])) for one in ("isotropic", "permutation", "sae-feature")
        ]
        for vector in ("a", "minus-a")
    }
    assert found == {"a": [[2, 3], [4], [7]], "minus-a": [[2, 3], [5], [8]]}  # of opposites where signs differ
    assert draws_among(["permutation:a#0", "permutation:a#1#0"], stem("permutation", "a", ["a", "a#1"])) == [0]
    assert stem("permutation", "minus-a", ["minus-a"]) == "permutation:minus-a#"
