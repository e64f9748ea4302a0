"""Heimersheim & Mendel 2024: crossings against loops, claims on curves made to hold or to fail, figures' numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

from heimersheim_worlds import FAILS, HOLDS, L2, MANY, NULL, PAIR, WEIGHTS, N, dataset, results
from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.analysis import estimates
from tiltmeter.analysis.shapes import Shape
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Straight
from tiltmeter.reports.charts.chart import HeatMap, Histogram, Line, Rule, Surface, Triangle
from tiltmeter.reports.charts.mpl import draw
from tiltmeter.studies.claims import judge
from tiltmeter.studies.heimersheim2024 import STUDY
from tiltmeter.studies.heimersheim2024.claims import CLAIMS
from tiltmeter.studies.heimersheim2024.curve_statistics import (
    at_distance,
    corner,
    is_first,
    neighbours,
    relative_crossings,
    triangle_crossings,
)
from tiltmeter.studies.heimersheim2024.estimands import quadratic
from tiltmeter.studies.heimersheim2024.experiments import (
    DEGREES,
    DRAWN_PROMPTS,
    RANDOM,
    REAL,
    REAL_TRIANGLE,
    SCALES,
    Scale,
    experiments,
    plane,
    triangle,
)
from tiltmeter.studies.heimersheim2024.figures.plane_maps import on_plane
from tiltmeter.studies.latent_counts import INPUTS
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.study import KnownSAE, Subject, SweepExperiment
from tiltmeter.sweeps.plan import make_plan
from tiny_models import tiny


@cache
def verdicts(world):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimates, "RESAMPLES", 199)  # a fifth of the draws, for speed
        return {verdict.claim.name: verdict.word for verdict in judge(CLAIMS, results(world))}


FROM_MANY = ("last-layer-no-order", "last-layer-no-order-relative")
"""What takes hundreds of prompts to show."""


@pytest.mark.parametrize("claim", [claim.name for claim in CLAIMS if claim.name not in FROM_MANY])
def test_claims_where_they_hold(claim):
    assert verdicts(HOLDS)[claim] == "supported"


def test_the_order_of_two_is_none_in_many_prompts():
    last = dataset((RANDOM, REAL), DEGREES, (1.0, 1.0), 2.0, HOLDS._replace(noise=0.4), 60, prompts=MANY)
    claims = [claim for claim in CLAIMS if claim.name in FROM_MANY]
    found = judge(claims, Results({"sphere-last-layer": last}, {}))
    assert [verdict.word for verdict in found] == ["supported", "supported"]
    few = judge(claims, Results({"sphere-last-layer": last.isel(sequence=slice(N))}, {}))
    assert [verdict.word for verdict in few] == ["inconclusive", "inconclusive"]


@pytest.mark.parametrize("claim", [claim.name for claim in CLAIMS])
def test_claims_where_they_fail(claim):
    assert verdicts(FAILS)[claim] == "contradicted"


@pytest.mark.parametrize(
    "claim",
    [
        "plateau-short",
        "plateau-medium",
        "plateau-short-l2",
        "plateau-short-cosine",
        "plateau-short-transplanted",
        "real-direction-stronger",
        "real-direction-stronger-l2",
        "real-direction-earlier-sphere",
        "real-direction-earlier-sphere-relative",
        "real-direction-earlier-straight",
        "real-direction-earlier-straight-relative",
        "real-direction-earlier-l2",
        "naive-random-less-sensitive",
        "last-layer-gap-smaller",
        "last-layer-gap-smaller-relative",
        "real-corner-local-optimum",
        "real-corner-stands-out",
    ],
)
def test_claims_where_nothing_differs(claim):
    assert verdicts(NULL)[claim] in ("inconclusive", "contradicted")


def test_no_plateau_is_told_from_a_flat_base():
    """A KL that grows with the square of the distance is not flat to 40 degrees."""
    assert verdicts(NULL)["real-base-flat-to-40-degrees"] == "contradicted"


@pytest.mark.parametrize("claim", [claim.name for claim in CLAIMS if claim.name not in FROM_MANY[1:]])
def test_where_kl_never_reaches_half_a_nat(claim):
    """As on random weights: what needs the absolute threshold is not tested, all else as it was."""
    words = {"not tested"} if needs_half_a_nat(claim) else {"supported"}
    assert verdicts(HOLDS._replace(size=1e-3))[claim] in words


def needs_half_a_nat(claim):
    parts = ("real-direction-earlier", "last-layer", "real-corner", "random-triangle", "threshold-tells")
    return claim.startswith(parts) and not claim.endswith(("-relative", "-l2"))


def test_every_absolute_threshold_has_a_relative_sibling():
    names = {claim.name for claim in CLAIMS}
    absolute = {name for name in names if needs_half_a_nat(name)} - {"threshold-tells-directions-apart"}
    assert len(absolute) == 8
    assert {f"{name}-relative" for name in absolute} <= names


def test_a_claim_of_what_was_not_measured():
    (verdict,) = judge([CLAIMS[0]], Results({}, {"straight-random-base": "It was too late."}))
    assert (verdict.word, verdict.reason) == ("not tested", "It was too late.")


def test_relative_crossings_share_a_threshold():
    curves = results(HOLDS)["sphere"]
    found = relative_crossings(curves, (REAL, RANDOM))
    right_angle = list(DEGREES).index(90.0)
    for prompt in range(0, N, 7):
        one, other = (curves.kl.sel(direction=name, sequence=prompt).values for name in (REAL, RANDOM))
        threshold = (one[right_angle] + other[right_angle]) / 4
        for name, values in ((REAL, one), (RANDOM, other)):
            after = next(step for step, value in enumerate(values) if value > threshold)
            low, high = values[after - 1], values[after]
            expected = DEGREES[after - 1] + 5 * (threshold - low) / (high - low)
            assert found[name].value[prompt] == pytest.approx(expected)


def test_a_curve_that_does_not_move_has_no_relative_crossing():
    curves = results(HOLDS)["sphere"]
    still = curves.assign(kl=curves.kl.where(curves.sequence != 3, 0.0))
    found = relative_crossings(still, (REAL, RANDOM))[REAL]
    assert np.isnan(found.value[3])
    assert not found.censored[3]
    assert np.isfinite(found.value[:3]).all()


def test_at_distance():
    curves = results(HOLDS)["straight"]
    along, kl = (curves[name].sel(direction=RANDOM).transpose("sequence", "step").values for name in ("length", "kl"))
    found = at_distance(curves, "kl", RANDOM, 0.5)
    for prompt in range(N):
        after = next(step for step, length in enumerate(along[prompt]) if length > 12.5)
        part = (12.5 - along[prompt, after - 1]) / (along[prompt, after] - along[prompt, after - 1])
        expected = kl[prompt, after - 1] + part * (kl[prompt, after] - kl[prompt, after - 1])
        assert found[prompt] == pytest.approx(expected)
    assert np.isnan(at_distance(curves, "kl", RANDOM, 1.4)).all()


def test_which_is_first():
    inf, nan = np.inf, np.nan
    one = np.array([1.0, 2.0, 3.0, 1.0, inf, inf, nan])
    other = np.array([2.0, 1.0, 3.0, inf, 1.0, inf, 1.0])
    assert np.array_equal(is_first(one, other), [1.0, 0.0, 0.5, 1.0, 0.0, nan, nan], equal_nan=True)
    assert np.array_equal(
        Shape(np.array([1.0, nan, nan]), np.array([False, True, False])).value_or_inf, [1, inf, nan], True
    )


def test_a_kl_without_plateau():
    x = np.array([1.0, 0.0])
    chords = [np.linalg.norm([np.cos(np.radians(angle)) - x[0], np.sin(np.radians(angle))]) for angle in (40, 90)]
    assert quadratic(40.0) == pytest.approx((chords[0] / chords[1]) ** 2)
    assert quadratic(40.0) == pytest.approx(0.234, abs=1e-3)


def test_neighbours_of_a_corner():
    weights = list(triangle_crossings(results(HOLDS)["triangle-real"], "absolute"))
    assert len(weights) == 15
    assert set(neighbours(weights, 0)) == {(0.75, 0.25, 0.0), (0.75, 0.0, 0.25)}
    assert set(neighbours(weights, 2)) == {(0.25, 0.0, 0.75), (0.0, 0.25, 0.75)}
    assert all(corner(number) in weights for number in range(3))


def test_triangle_times_belong_to_their_weights():
    """The real corner of a world where it is eight times as sensitive: KL 8 · 0.4 · chord² = ½."""
    world = HOLDS._replace(noise=0.0, size=0.4)
    found = triangle_crossings(results(world)["triangle-real"], "absolute")
    assert found[corner(0)] == pytest.approx(2 * np.degrees(np.arcsin(np.sqrt(0.5 / 3.2) / 2)), abs=0.5)
    assert found[corner(1)] == pytest.approx(2 * np.degrees(np.arcsin(np.sqrt(0.5 / 0.4) / 2)), abs=0.5)


@pytest.fixture(scope="module")
def held():
    """As measured: all directions are drawn from a few prompts only."""
    found = dict(results(HOLDS))
    few = {name: found[name].isel(sequence=slice(DRAWN_PROMPTS)) for name in ("straight-draws", "sphere-draws")}
    return Results(found | few | {"latents": latents()}, {})


def latents():
    """Counts of active latents: as many for the prompt's own activation as there are prompts, fewer for others."""
    active = np.stack([np.arange(1, 41), np.arange(40), np.arange(40) // 2])
    coords = {"input": list(INPUTS), "sequence": np.arange(40)}
    return xr.Dataset({"active": (("input", "sequence"), active)}, coords, {"sae": "one", "latents": 50})


@pytest.mark.parametrize("name", STUDY.figures)
def test_figures_are_drawn_and_told(held, name):
    figure = STUDY.figures[name]
    chart = figure.chart(held)
    assert draw(chart).axes
    assert figure.finding(held).endswith(".")
    assert "nan" not in figure.finding(held)
    assert figure.caption.endswith(".")
    assert figure.claimed.endswith(".")


@pytest.mark.parametrize("name", STUDY.figures)
def test_figures_name_what_they_need(held, name):
    figure = STUDY.figures[name]
    only = Results({need: held[need] for need in figure.needs}, {})
    figure.chart(only)
    assert figure.finding(only) == figure.finding(held)


def test_needs_are_experiments(held):
    assert {need for figure in STUDY.figures.values() for need in figure.needs} == set(held)
    assert set(held) >= STUDY.uncontrolled


def lines_of(panel, thin):
    return [mark for mark in panel.marks if isinstance(mark, Line) and mark.thin == thin]


def test_numbers_by_angle(held):
    kl, l2 = STUDY.figures["1-sphere"].chart(held).panels
    means = {line.name: line for line in lines_of(kl, thin=False)}
    curves = held["sphere-random-base"]
    assert means["random base"].y == pytest.approx(curves.kl.sel(direction=RANDOM).mean("sequence").values)
    own = held["sphere"][L2].sel(direction=RANDOM).mean("sequence").values
    assert lines_of(l2, thin=False)[0].y == pytest.approx(own)
    single = [line for line in lines_of(kl, thin=True) if line.name == "random base"]
    assert len(single) == 20
    assert single[7].y == pytest.approx(curves.kl.sel(direction=RANDOM, sequence=7).values)
    assert [mark.at for mark in kl.marks if isinstance(mark, Rule)] == [0.5]


def test_numbers_by_distance(held):
    kl, _ = STUDY.figures["core-2"].chart(held).panels
    mean = lines_of(kl, thin=False)[1]
    assert mean.name == REAL
    curves = held["straight"].sel(direction=REAL)
    at = len(mean.x) // 2
    naive = [np.interp(mean.x[at], curves.length.sel(sequence=n), curves.kl.sel(sequence=n)) for n in range(N)]
    assert mean.y[at] == pytest.approx(np.mean(naive))
    together, _ = STUDY.figures["core-1"].chart(held).panels
    reaches = [float(held[name].length.isel(step=-1).min()) for name in ("straight", "straight-random-base")]
    assert [line.x[-1] for line in lines_of(together, thin=False)] == pytest.approx([min(reaches)] * 2)
    assert [mark.at for mark in kl.marks if isinstance(mark, Rule)] == [PAIR]


def test_histograms_leave_out_what_never_gets_there(held):
    curves = held["straight"]
    short = curves.kl.where((curves.sequence >= 5) | (curves.direction != REAL), 0.0)
    changed = Results({**held, "straight": curves.assign(kl=short)}, {})
    left, right = STUDY.figures["2-histogram"].chart(changed).rows[1]
    counts = {mark.name: mark.counts.sum() for mark in left.marks if isinstance(mark, Histogram)}
    assert counts == {RANDOM: N, REAL: N - 5}
    assert right.title == "never past it: 0, 5"
    ends = {mark.name: mark.y[-1] for mark in right.marks if isinstance(mark, Line)}
    assert ends == {RANDOM: 1.0, REAL: pytest.approx(1 - 5 / N)}


def test_triangles_show_medians_and_single_prompts(held):
    chart = STUDY.figures["3"].chart(held)
    (median,), (single,) = chart.rows[1][0].marks, chart.rows[1][2].marks
    assert isinstance(median, Triangle)
    found = triangle_crossings(held["triangle-real"], "absolute")
    for weights, value, alone in zip(median.weights, median.values, single.values, strict=True):
        assert value == pytest.approx(np.median(found[tuple(weights)]))
        assert alone == pytest.approx(found[tuple(weights)][1])
    assert median.corners == ("real", "random", "random")


def test_triangles_are_blank_where_nothing_is_reached():
    low = results(HOLDS._replace(size=1e-3))
    chart = STUDY.figures["3"].chart(low)
    assert all(np.isnan(mark.values).all() for panel in chart.panels for mark in panel.marks)
    assert draw(chart).axes
    assert "no crossing" in STUDY.figures["3"].finding(low)
    assert "KL passes 0.5 nats in 0 of 64 prompts" in STUDY.figures["late-layer"].finding(low)


def test_the_plane_lies_as_its_weights_say(held):
    grid = on_plane(held["plane"], "kl", 1)
    assert grid.weights == pytest.approx(WEIGHTS)
    for row, b in enumerate(WEIGHTS):
        for column, a in enumerate(WEIGHTS):
            assert grid.values[row, column] == pytest.approx(10 * a + b)
    surface, flat = (STUDY.figures["plane"].chart(held).rows[row][0].marks[0] for row in (0, 1))
    assert isinstance(surface, Surface)
    assert isinstance(flat, HeatMap)
    assert surface.marked == (("this prompt", 0.0, 0.0, 0.0), ("another", 1.0, 0.0, 10.0), ("a third", 0.0, 1.0, 1.0))


TINY = Scale(prompts=3, triangles=2, side=2, planes=2, plane=(0.0, 0.5, 1.0), statistics=12)


@pytest.fixture(scope="module")
def subject():
    model = SplitModel(tiny("gpt2"))
    facts = {"name": "tiny", "sha256": "0", "class": "GPT2LMHeadModel", "revision": "none"}
    return Subject(LoadedModel(model, None, facts), 1, ())


def sweep_of(subject, name):
    experiment = experiments(subject, "quick")[name]
    assert isinstance(experiment, SweepExperiment)
    return experiment.sweep


def test_sweeps_are_as_the_post_has_them(subject):
    for size in SCALES:
        for name, experiment in experiments(subject, size).items():
            if name == "latents":
                assert isinstance(experiment, NotMeasured)
                continue
            sweep = experiment.sweep
            last = name == "sphere-last-layer"
            assert sweep.site == f"blocks.{2 if last else 1}.hook_resid_pre"
            assert sweep.readouts == ("kl", "l2@blocks.2.hook_resid_post", "cos@blocks.2.hook_resid_post")
            assert (sweep.positions, sweep.statistics_positions) == ("last", "perturbed")
            assert sweep.base == {"random-base": "cov-random", "other-base": "real"}.get(
                name.partition("-")[2], "clean"
            )
    assert sweep_of(subject, "sphere").path.degrees[0] == 0.0 and sweep_of(subject, "sphere").path.degrees[-1] == 180.0
    assert sweep_of(subject, "straight").path.unit == "norm"
    assert STUDY.length == 10
    assert max(1, round(STUDY.depth * 12)) == 1


def test_directions_can_be_planned(subject):
    tokens = token_set()
    planned = experiments(subject, "paper")
    for experiment in (one for name, one in planned.items() if name != "latents"):
        sweep = experiment.sweep.model_copy(update={"sequences": 2})
        plan = make_plan(sweep, subject.loaded.model, tokens)
        assert len(set(plan.directions)) == len(sweep.directions)


def test_points_of_the_maps():
    names = triangle(REAL_TRIANGLE, 8)
    assert len(names) == 45
    assert "blend:0.25*real+0.125*cov-random+0.625*cov-random" in names
    weights = [[float(term.partition("*")[0]) for term in name[6:].split("+")] for name in names]
    assert all(sum(point) == pytest.approx(1.0) for point in weights)
    assert "blend:0*real+0*real" not in plane((0.0, 1.0))
    assert plane((0.0, 1.0)) == ("blend:0*real+1*real", "blend:1*real+0*real", "blend:1*real+1*real")


def ends(subject, name, tmp_path, monkeypatch):
    """Where paths toward targets end, prompt by prompt."""
    seen, resume = [], SplitModel.resume

    def spy(self, clean, x):
        seen.append(x)
        return resume(self, clean, x)

    path = Straight(lengths=(1.0,), unit="target")
    sweep = sweep_of(subject, name).model_copy(update={"path": path, "sequences": 4, "directions": (RANDOM,)})
    with monkeypatch.context() as patched:
        patched.setattr(SplitModel, "resume", spy)
        SweepExperiment(sweep).run(subject.loaded, token_set(), tmp_path / name, "test")
    return seen[-1][0, :, -1]


def test_all_bases_have_the_same_targets(subject, tmp_path, monkeypatch):
    own, random, other = (
        ends(subject, f"straight{base}", tmp_path, monkeypatch) for base in ("", "-random-base", "-other-base")
    )
    assert torch.allclose(own, random, atol=1e-5)
    assert torch.allclose(own, other, atol=1e-5)
    assert not torch.allclose(own[0], own[1], atol=1e-2)


def test_the_whole_study_on_a_small_model(subject, tmp_path, monkeypatch):
    monkeypatch.setitem(SCALES, "quick", TINY)
    found: dict[str, xr.Dataset] = {}
    sae = KnownSAE(str(save_sae(tmp_path / "sae")), Site(1, "resid_pre"), "local", 5.0)
    for name, experiment in experiments(replace(subject, saes=(sae,)), "quick").items():
        found[name] = experiment.run(subject.loaded, token_set(), tmp_path / name, "test")
    measured = Results(found, {})
    for figure in STUDY.figures.values():
        assert draw(figure.chart(measured)).axes
        assert figure.finding(measured).endswith(".")
    assert {verdict.word for verdict in judge(CLAIMS, measured)} == {"not tested"}  # three prompts are too few
    assert json.loads(found["plane"].attrs["manifest"])


def test_what_was_not_measured_is_no_figure():
    with pytest.raises(NotMeasured, match=r"was not run\.$"):
        STUDY.figures["3"].chart(Results({}, {}))
