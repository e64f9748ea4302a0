"""Giglemiani et al. 2024: read-offs against loops, claims on curves made to hold or to fail, figures' numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import tiltmeter
from giglemiani_worlds import (
    EQUAL,
    FLAT,
    GRID,
    L2,
    LEVEL,
    NEARER,
    PUBLISHED,
    REVERSED,
    STEEP,
    STEP,
    dataset,
    results,
)
from tiltmeter.analysis import estimates
from tiltmeter.analysis.shapes import Shape
from tiltmeter.data.token_set import TokenSet, load_tokens
from tiltmeter.models.loading import LoadedModel
from tiltmeter.reports.charts.chart import Bars, Chart, Histogram, Line, Points
from tiltmeter.reports.charts.mpl import draw, to_png
from tiltmeter.reports.charts.plotly import to_plotly
from tiltmeter.saes.load_check import check_on_load
from tiltmeter.studies.claims import Verdict, judge
from tiltmeter.studies.giglemiani2024 import STUDY
from tiltmeter.studies.giglemiani2024.claims import CLAIMS
from tiltmeter.studies.giglemiani2024.curve_statistics import (
    FLAT_L2,
    STATISTICS,
    TYPES,
    sample,
    samples,
    step_length,
    stops,
)
from tiltmeter.studies.giglemiani2024.experiments import BASES, PLAIN_TARGETS, SCALES, TARGET, Scale
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.study import Subject, SweepExperiment
from tiltmeter.studies.subject import make_subject
from tiltmeter.sweeps import records


@cache
def verdicts(case: str) -> Mapping[str, Verdict]:
    cases = {
        "published": (PUBLISHED, NEARER, FLAT),
        "reversed": (REVERSED, REVERSED, STEEP),
        "equal": (EQUAL, EQUAL, LEVEL),
    }
    return judged(results(*cases[case]))


def judged(run: Results) -> Mapping[str, Verdict]:
    """Verdicts by claim."""
    return {verdict.claim.name: verdict for verdict in judge(CLAIMS, run)}


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard errors need not be precise here."""
    monkeypatch.setattr(estimates, "RESAMPLES", 99)


NAMES = [claim.name for claim in CLAIMS]
NOT_OF_ORDER = {"step-like", "reconstruction-like-real"}
EQUIVALENCES = {"structured-closely-resembles-real", "plateaus-structured-like-random"}
OF_SIZE = {"real-before-random", "plateaus-real-above-random", "plateaus-synthetic-less-pronounced"}
"""What is claimed to be more, by the margin, not merely first."""


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_is_supported_by_curves_as_the_paper_has_them(name: str) -> None:
    verdict = verdicts("published")[name]
    assert verdict.word == "supported", [str(one) for one in verdict.estimates]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_OF_ORDER | {"relative-gap-smaller"}])
def test_claims_of_an_order_are_contradicted_by_the_opposite(name: str) -> None:
    verdict = verdicts("reversed")[name]
    assert verdict.word == "contradicted", [str(one) for one in verdict.estimates]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_OF_ORDER | EQUIVALENCES])
def test_claims_of_an_order_are_not_supported_where_all_types_are_equal(name: str) -> None:
    verdict = verdicts("equal")[name]
    word = "contradicted" if name in OF_SIZE else "inconclusive"
    assert verdict.word == word, [str(one) for one in verdict.estimates]


@pytest.mark.parametrize("name", sorted(EQUIVALENCES))
def test_claims_of_equivalence_are_supported_where_all_types_are_equal(name: str) -> None:
    assert verdicts("equal")[name].word == "supported"


def test_a_gap_that_grows_with_relative_steps_contradicts_that_it_shrinks() -> None:
    found = judged(results(NEARER, PUBLISHED, FLAT))
    assert found["relative-gap-smaller"].word == "contradicted"


def test_straight_curves_are_not_step_like_and_far_reconstructions_not_like_real_ones() -> None:
    found = results(PUBLISHED, PUBLISHED, FLAT).found
    relative = found["relative"].copy(deep=True)
    relative[L2].loc[{"direction": "real-difference"}] = (GRID * 0.5)[:, None] ** 0.9
    absolute = found["absolute"].copy(deep=True)
    name = "sae-reconstruction-difference:local-1"
    absolute[L2].loc[{"direction": name}] = absolute[L2].sel(direction="cov-random-difference").values
    verdict = judged(Results(found | {"relative": relative, "absolute": absolute}, {}))
    assert verdict["step-like"].word == verdict["reconstruction-like-real"].word == "contradicted"


def test_what_needs_an_sae_is_not_tested_without_one() -> None:
    whole = results(PUBLISHED, NEARER, FLAT)
    plain = {name: whole[name].sel(direction=["real-difference", TARGET]) for name in ("absolute", "relative")}
    plain |= {f"plateaus-{base}": whole[f"plateaus-{base}"] for base in ("real", "cov-random")}
    reason = "No SAE was given."
    found = judged(Results(plain, {f"plateaus-{base}": reason for base in BASES[2:]}))
    assert found["real-before-random"].word == found["plateaus-real-above-random"].word == "supported"
    assert found["plateaus-baseline-steepest"].reason == reason
    assert found["structured-nearer-than-baseline"].reason == reason
    assert "need an SAE" in found["reconstruction-like-real"].reason
    words = [verdict.word for verdict in found.values()]
    assert words.count("supported") == 3 and words.count("not tested") == len(CLAIMS) - 3
    for number in STUDY.figures:
        assert STUDY.figures[number].chart(Results(plain, {})).panels


def test_figures_of_nothing_say_why() -> None:
    for figure in STUDY.figures.values():
        with pytest.raises(NotMeasured, match=r"was not run|no reason"):
            figure.chart(Results({}, {}))


def noisy(seed: int) -> Results:
    """Rough curves, some flat, some not measured, toward targets at many distances."""
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(0.1, 1.0, (2, 30, 101)) ** 2 * 0.5, axis=2)
    values -= values[:, :, :1]
    values[:, 3], values[:, 7] = values[:, 3] * 1e-6, np.nan
    names = ["real-difference", TARGET]
    distance = rng.uniform(2.0, 40.0, (2, 1, 30))
    lengths = distance * (GRID / 100)[None, :, None]
    curves = dataset(dict(zip(names, values, strict=True)), lengths)
    return Results({"absolute": curves, "relative": curves, "plateaus-real": curves.sel(direction=[TARGET])}, {})


def test_max_slope_steps_end_at_the_target_and_are_censored_where_nothing_rises() -> None:
    run = noisy(0)
    curves = run["absolute"]
    end = np.nanmedian(curves[L2].sel(direction="real-difference").values[-1])
    for kind, direction in (("real", "real-difference"), ("cov-random", TARGET)):
        found = sample(run, "ms-absolute", kind).value_or_inf
        for row in range(30):
            values = curves[L2].sel(direction=direction).values[:, row]
            distance = float(curves["length"].sel(direction=direction).values[-1, row])
            counted = values[: int(distance // STEP)]
            rises = [counted[n] - counted[n - 1] for n in range(1, len(counted))]
            if np.isnan(values).any():
                assert np.isnan(found[row])
            elif max(rises) <= FLAT_L2 * end:
                assert found[row] == np.inf
            else:
                assert found[row] == 1 + max(n for n, rise in enumerate(rises) if rise == max(rises))
    assert np.isinf(found).any() and stops(run, TARGET).min() < 100


def test_plateaus_end_where_the_published_part_of_the_end_is_reached() -> None:
    run = noisy(1)
    values = run["plateaus-real"][L2].values[0]
    threshold = 20 / 241 * np.nanmedian(values[-1])
    naive = [next((n for n in range(101) if column[n] >= threshold), np.inf) for column in values.T]
    naive[7] = np.nan
    assert np.array_equal(sample(run, "ap", "real").value_or_inf, naive, equal_nan=True)


@pytest.mark.parametrize("name", STATISTICS)
def test_read_offs_do_not_depend_on_the_scale_of_the_readout(name: str) -> None:
    run = noisy(2)
    larger = Results({key: one.assign({L2: one[L2] * 7, "kl": one.kl * 7}) for key, one in run.items()}, {})
    for one, other in zip(samples(run, name).values(), samples(larger, name).values(), strict=True):
        assert np.array_equal(one.value_or_inf, other.value_or_inf, equal_nan=True)


def _marks(chart: Chart, kind: type) -> list[list]:
    return [[mark for mark in panel.marks if isinstance(mark, kind)] for panel in chart.panels]


@pytest.mark.parametrize(
    ("number", "names"), [("2", ["ms-absolute"]), ("3", ["ap"]), ("NL", ["nl-absolute", "nl-relative"])]
)
def test_distributions_count_every_curve(number: str, names: list[str]) -> None:
    run = noisy(3)
    chart = STUDY.figures[number].chart(run)
    for row, name in zip(chart.rows, names, strict=True):
        counts, cumulative = row
        shapes = samples(run, name)
        assert [mark.name for mark in counts.marks] == [mark.name for mark in cumulative.marks] == list(shapes)
        for bars, line, shape in zip(counts.marks, cumulative.marks, shapes.values(), strict=True):
            assert isinstance(bars, Histogram) and isinstance(line, Line)
            known = np.count_nonzero(~np.isnan(shape.value))
            measured = known + np.count_nonzero(shape.censored)
            assert bars.counts.sum() == known and 25 < measured < 30
            assert line.y[-1] == pytest.approx(known / measured)
        if any(shape.censored.any() for shape in shapes.values()):
            assert cumulative.title == f"censored: {', '.join(str(one.censored.sum()) for one in shapes.values())}"


def test_bins_hold_equally_many_steps() -> None:
    for marks in _marks(STUDY.figures["3"].chart(results(PUBLISHED, NEARER, FLAT)), Histogram)[:1]:
        for mark in marks:
            assert np.allclose(mark.edges % 1, 0.5) and len(mark.edges) <= 31


def test_examples_have_their_dots_on_their_curves() -> None:
    run = results(PUBLISHED, NEARER, FLAT)
    chart = STUDY.figures["1"].chart(run)
    values = run["absolute"][L2].sel(direction="real-difference").values
    dots = next(mark for mark in _marks(chart, Points)[0] if mark.name == "real, MS step")
    shown = [mark for mark in _marks(chart, Line)[0] if mark.name == "real"]
    mean = next(mark for mark in _marks(chart, Line)[0] if mark.name == "real, mean")
    assert len(shown) == len(dots.x) == 3
    for row in range(3):
        at = int(np.argmax(np.diff(values[:, row]))) + 1
        assert (dots.x[row], dots.y[row]) == (at, values[at, row])
        assert np.array_equal(shown[row].y, values[:, row])
    assert np.allclose(mean.y, values.mean(1))


@pytest.mark.parametrize("number", STUDY.figures)
def test_figures_are_drawn_for_papers_and_for_the_report(number: str) -> None:
    chart = STUDY.figures[number].chart(noisy(4))
    assert to_png(draw(chart)) and to_plotly(chart)["data"]


def test_bars_of_distances_are_those_of_scipy() -> None:
    run = results(PUBLISHED, NEARER, FLAT)
    chart = STUDY.figures["KS"].chart(run)
    for mark in _marks(chart, Bars)[0]:
        for label, value in zip(mark.categories, mark.y, strict=True):
            name = next(name for name, statistic in STATISTICS.items() if statistic.label == label)
            pair = [np.nan_to_num(sample(run, name, kind).value_or_inf, posinf=1e9) for kind in ("real", mark.name)]
            assert value == pytest.approx(stats.kstest(*pair)[0])
        assert mark.low is not None and (mark.low >= 0).all()


def test_findings_have_the_numbers() -> None:
    run = results(PUBLISHED, NEARER, FLAT)
    found = STUDY.figures["2"].finding(run)
    mean = float(np.nanmean(sample(run, "ms-absolute", "cov-random").value))
    assert f"cov-random {mean:.1f} [" in found and "Censored" not in found
    part = sample(noisy(0), "ms-absolute", "cov-random").censored.sum() / 29
    assert 0 < part < 0.5 and f"cov-random {part:.1%}" in STUDY.figures["2"].finding(noisy(0))
    flat = noisy(0)["absolute"].copy(deep=True)
    flat[L2][:, :, :] = GRID[None, :, None]
    straight = STUDY.figures["NL"].finding(Results({"absolute": flat, "relative": flat}, {}))
    assert "mean: real none, cov-random none." in straight and "nan" not in straight
    assert all(figure.finding(run).endswith(".") for figure in STUDY.figures.values())


def test_censored_curves_are_late_in_distances() -> None:
    shape = Shape(np.array([3.0, np.nan, np.nan]), np.array([False, True, False]))
    assert np.array_equal(shape.value_or_inf, [3.0, np.inf, np.nan], equal_nan=True)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return make_subject(STUDY, tiltmeter.load_model("nano", precision="float32"), None, ("nano:local-1-l0-24",), 0)


@pytest.fixture(scope="module")
def measured(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The whole study on a few sequences."""
    tokens = _tokens(subject.loaded)
    folder: Path = tmp_path_factory.mktemp("giglemiani")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(SCALES, "quick", Scale(curves=10, statistics=64))
        patched.setattr(records, "check_on_load", partial(check_on_load, budget=1))
        planned = STUDY.experiments(subject, "quick")
        runs = {name: one for name, one in planned.items() if not isinstance(one, NotMeasured)}
        assert set(runs) == set(planned)
        return Results({name: one.run(subject.loaded, tokens, folder / name, name) for name, one in runs.items()}, {})


def _tokens(loaded: LoadedModel) -> TokenSet:
    return load_tokens(
        "nano",
        tokenizer=loaded.tokenizer,
        vocabulary=loaded.model.vocabulary,
        context=loaded.model.context,
        at_most=64,
        length=STUDY.length,
    )


def test_the_study_runs_whole_on_nano(subject: Subject, measured: Results) -> None:
    assert subject.layer == 1 and measured["absolute"].attrs["site"] == "blocks.1.hook_resid_pre"
    assert measured["absolute"].attrs["positions"] == "last"
    assert float(measured["absolute"].step[-1]) == pytest.approx(float(measured["absolute"].attrs["pair_distance"]))
    for figure in STUDY.figures.values():
        assert figure.chart(measured).panels and figure.finding(measured).endswith(".")
    assert {verdict.word for verdict in judged(measured).values()} <= {"supported", "contradicted", "inconclusive"}
    assert list(samples(measured, "ms-absolute")) == list(TYPES) and list(samples(measured, "ap")) == list(BASES)


def test_relative_paths_end_at_the_targets_of_the_absolute_ones(measured: Results) -> None:
    """Where an absolute curve passes its target's distance, it has the value that the relative one ends with."""
    absolute, relative = measured["absolute"], measured["relative"]
    compared = 0
    for direction in absolute.direction.values:
        distance = relative["length"].sel(direction=direction).values[-1]
        assert np.array_equal(stops(measured, direction), np.floor(distance / step_length(absolute)))
        for row in np.flatnonzero(distance < float(absolute.step[-1])):
            curve = absolute[L2].sel(direction=direction).values[:, row]
            end = float(relative[L2].sel(direction=direction).values[-1, row])
            assert np.interp(distance[row], absolute.step.values, curve) == pytest.approx(end, rel=0.01)
            compared += 1
    assert compared > 10


def test_without_an_sae_only_real_and_random_activations_are_planned(subject: Subject) -> None:
    planned = STUDY.experiments(Subject(subject.loaded, 1, ()), "quick")
    assert [name for name, one in planned.items() if isinstance(one, NotMeasured)] == [
        f"plateaus-{b}" for b in BASES[2:]
    ]
    sweep = planned["absolute"]
    assert isinstance(sweep, SweepExperiment) and sweep.sweep.directions == PLAIN_TARGETS
