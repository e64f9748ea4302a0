"""Crossings of a model's curves: those that a full scan has, whatever moves and is read, killed or not."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sweep_cases import command, refusal, save_model, save_tokens, token_set
from tiltmeter.analysis.bisection import CrossingTarget
from tiltmeter.analysis.intervals import median_interval
from tiltmeter.analysis.shapes import crossing, relative
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.loading import LoadedModel, load_model
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Sphere, Straight, Substitute
from tiltmeter.sweeps import crossings
from tiltmeter.sweeps.crossings import Crossings, run_crossings
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep
from tiny_models import tiny

SMALL = Sweep(
    site="resid_pre:1",
    directions=("isotropic", "cov-random-mixture", "real-difference"),
    path=Straight(lengths=tuple(k / 2 for k in range(17))),
    sequences=10,
    shard=4,
    pool=50,
)
FILES = ("crossings.csv", "crossings.parquet", "summary.csv", "summary.parquet")
CASES = {
    "all": {},
    "last": {"positions": "last"},
    "32+16": {"positions": "2+3", "base": "real"},
    "sphere": {"path": Sphere(degrees=tuple(range(0, 181, 9))), "positions": "last"},
    "unsorted": {"path": Straight(lengths=(4.0, 1.0, 0.5, 8.0, 0.0, 2.0), unit="norm")},
    "late": {"readouts": ("l2@resid_post:2",), "bos": {"perturbation": "out", "average": "out"}},
    "few at once": {"batch_tokens": 24},
}


def loaded_as(model):
    return LoadedModel(model, None, {"name": "tiny", "sha256": "of this test"})


@pytest.fixture(scope="module")
def loaded():
    return loaded_as(SplitModel(tiny("gpt2").double()))


def changed(**changes):
    return Sweep(**SMALL.model_dump() | changes)


def flat(curves, readout):
    """Curves and their steps, [direction · sequence, step]."""
    block = curves[readout].sortby("step").transpose("direction", "sequence", "step")
    return block.values.reshape(-1, block.sizes["step"]), block.step.values


@pytest.mark.parametrize("case", CASES)
def test_a_full_scan_has_the_same(loaded, tmp_path, case):
    """In float64, where the number of rows that are run at once cannot decide on which side a value lies."""
    sweep = changed(**CASES[case])
    scan = run_sweep(sweep, loaded, token_set(), tmp_path / "scan")
    readout = next(name for name in scan.data_vars if name not in ("length", "tokens"))
    values, steps = flat(scan, readout)
    threshold = float(np.median(values[:, -1]))
    wanted = Crossings(sweep=sweep, goal=CrossingTarget(threshold=threshold, guard=2))
    table = run_crossings(wanted, loaded, token_set(), tmp_path / "run")
    assert [*table.direction] == list(np.repeat(SMALL.directions, 10))
    assert [*table.sequence] == [*range(10)] * 3
    assert [*table.tokens] == [*scan.tokens.values.ravel()]
    above = values > threshold
    once = (np.diff(above.astype(int), axis=1) != 0).sum(1) <= 1
    assert once.sum() >= 20
    expected = crossing(values, steps, threshold)
    assert 0 < expected.censored.sum() < 30
    np.testing.assert_array_equal(table.crossing_censored[once], expected.censored[once])
    np.testing.assert_allclose(table.crossing_at[once], expected.value[once], rtol=1e-9)
    after = np.argmax(above, 1)
    crossed = once & ~expected.censored & (after > 0)
    np.testing.assert_array_equal(table.above_at[crossed], steps[after[crossed]])
    np.testing.assert_array_equal(table.below_at[crossed], steps[after[crossed] - 1])
    assert table.points.sum() < (0.6 if len(steps) > 6 else 0.8) * values.size


def test_a_fraction_of_the_last_value(loaded, tmp_path):
    sweep = changed(positions="last")
    values, steps = flat(run_sweep(sweep, loaded, token_set(), tmp_path / "scan"), "kl")
    wanted = Crossings(
        sweep=sweep, goal=CrossingTarget(fraction=0.5, guard=17)
    )  # a guard of all steps: the first crossing
    table = run_crossings(wanted, loaded, token_set(), tmp_path / "run")
    np.testing.assert_allclose(table.crossing_at, crossing(relative(values), steps, 0.5).value, rtol=1e-9)


def test_nano_in_float32(tmp_path):
    """As users run it: brackets of the scan, and its crossings to the digits of float32."""
    nano = load_model("nano")
    tokens = nano.load_tokens("nano", at_most=24)
    sweep = Sweep(
        site="resid_pre:3",
        directions=("isotropic", "real-mixture"),
        path=Sphere(degrees=tuple(range(0, 181, 6))),
        positions="last",
        sequences=8,
        statistics_sequences=24,
    )
    values, steps = flat(run_sweep(sweep, nano, tokens, tmp_path / "scan"), "kl")
    assert (np.diff(values > 0.5, axis=1).sum(1) == 1).all()
    table = run_crossings(Crossings(sweep=sweep, goal=CrossingTarget(threshold=0.5)), nano, tokens, tmp_path / "run")
    np.testing.assert_array_equal(table.above_at, steps[np.argmax(values > 0.5, 1)])
    np.testing.assert_allclose(table.crossing_at, crossing(values, steps, 0.5).value, rtol=1e-5)
    summary = pd.read_csv(tmp_path / "run" / "summary.csv")
    assert [*summary.passes] == [*table.groupby("direction", sort=False).points.sum()]
    assert [*summary.scan_passes] == [8 * 31] * 2
    assert summary.passes.sum() < 0.25 * summary.scan_passes.sum()


def test_differences_are_carried_for_every_row(tmp_path):
    sweep = changed(positions="2+3", sequences=4)
    tables = [
        run_crossings(
            Crossings(sweep=sweep, goal=CrossingTarget(threshold=1e-6, tolerance=1e-3)),
            loaded_as(model),
            token_set(),
            tmp_path / name,
        )
        for name, model in (("exact", ExactModel(tiny("gpt2"))), ("double", SplitModel(tiny("gpt2").double())))
    ]
    found, expected = (table.crossing_at.to_numpy() for table in tables)
    assert np.isfinite(found).sum() > 6
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_tolerance_is_in_the_units_that_were_asked_for(loaded, tmp_path):
    """An eighth of a pair distance, of brackets that were half of one."""
    sweep = changed(path=Straight(lengths=(0.0, 0.5, 1.0, 1.5), unit="pair-distance"))
    tables = [
        run_crossings(Crossings(sweep=sweep, goal=goal), loaded, token_set(), tmp_path / name)
        for name, goal in (
            ("low", CrossingTarget(threshold=1e-4, tolerance=0.125)),
            ("high", CrossingTarget(threshold=1e9)),
        )
    ]
    assert tables[1].crossing_censored.all()
    pair_distance = tables[1].below_at[0] / 1.5
    widths = (tables[0].above_at - tables[0].below_at).to_numpy()
    np.testing.assert_allclose(widths, pair_distance / 8)
    assert json.loads((tmp_path / "low" / "manifest.json").read_text())["record"]["units"] == "L2"


def test_progress_moves_within_a_shard(loaded, monkeypatch):
    told, one = [], SMALL.model_copy(update={"batch_tokens": 8 * len(SMALL.directions)})  # a sequence at once

    @contextmanager
    def counted(total, what):
        told.append(total)
        yield SimpleNamespace(take=told.append)

    monkeypatch.setattr(crossings, "counted_steps", counted)
    run_crossings(Crossings(sweep=one, goal=CrossingTarget(threshold=1e-3)), loaded, token_set())
    assert told == [10 * len(SMALL.directions), *[len(SMALL.directions)] * 10]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(loaded, tmp_path, monkeypatch):
    wanted = Crossings(sweep=SMALL, goal=CrossingTarget(threshold=1e-3))
    run_crossings(wanted, loaded, token_set(), tmp_path / "whole")
    measured, measure = [], crossings.measure_crossings

    def until(last):
        def one(*arguments):
            if len(measured) == last:
                raise KeyboardInterrupt
            measured.append(arguments[4])
            return measure(*arguments)

        return one

    monkeypatch.setattr(crossings, "measure_crossings", until(2))
    with pytest.raises(KeyboardInterrupt):
        run_crossings(wanted, loaded, token_set(), tmp_path / "killed")
    monkeypatch.setattr(crossings, "measure_crossings", until(99))
    run_crossings(wanted, loaded, token_set(), tmp_path / "killed")
    assert measured == [range(4), range(4, 8), range(8, 10)]
    for file in FILES:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    with pytest.raises(TiltmeterError, match="another configuration"):
        run_crossings(
            wanted.model_copy(update={"goal": CrossingTarget(threshold=1.0)}), loaded, token_set(), tmp_path / "whole"
        )


def test_sequences_in_which_nothing_moves_are_missing(loaded, tmp_path):
    """A boundary token that stays where it is, where it is the only one that should move."""
    ids = token_set().ids.clone()
    ids[3, 5] = 0
    tokens = replace(token_set(), ids=ids)
    sweep = changed(positions="5", bos={"perturbation": "out"})
    table = run_crossings(
        Crossings(sweep=sweep, goal=CrossingTarget(threshold=1e-3)), loaded, tokens, tmp_path / "some"
    )
    lost = table[table.tokens == 0]
    assert [*lost.sequence] == [3, 3, 3]
    assert lost.crossing_at.isna().all() and not lost.crossing_censored.any()
    assert [*pd.read_csv(tmp_path / "some" / "summary.csv").missing] == [1, 1, 1]
    with pytest.raises(TiltmeterError, match="Nothing was measured"):
        nothing = changed(positions="0", bos={"perturbation": "out"})
        run_crossings(
            Crossings(sweep=nothing, goal=CrossingTarget(threshold=1e-3)), loaded, token_set(), tmp_path / "none"
        )


def test_the_interval_of_a_median_holds_it_as_often_as_asked():
    random = np.random.default_rng(0)
    for n, most in ((6, 0.99), (15, 0.99), (40, 0.975)):
        held = [low <= 0 <= high for low, high in (median_interval(random.normal(size=n)) for _ in range(2000))]
        assert 0.94 < np.mean(held) < most
    assert median_interval(np.array([1.0, 2, 3, 4, 5, np.inf, np.inf, np.nan])) == (1, math.inf)
    assert all(math.isnan(end) for end in median_interval(np.arange(5.0)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": Substitute()}, "single point"),
        ({"path": Straight(lengths=(3.0,))}, "single point"),
        ({"readouts": ("kl", "js")}, "give one"),
        ({"readouts": ("cos@resid_post:2",)}, "does not grow from zero"),
        ({"readouts": ("loss",)}, "does not grow from zero"),
        ({"keep_positions": True}, "no separate crossings"),
    ],
)
def test_curves_that_have_no_such_crossing_are_refused(change, words):
    with pytest.raises(TiltmeterError, match=words):
        Crossings(sweep=changed(**change), goal=CrossingTarget(threshold=1.0))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    model, tokens = save_model(folder / "model"), save_tokens(folder / "tokens.npy", sequences=6)
    return ["crossings", "--model", model, "--tokens", tokens, "--site", "resid_pre:1", "--direction", "isotropic"]


def test_the_command_prints_what_it_found_and_cost(given, tmp_path):
    out = tmp_path / "run"
    asked = [*given, "--lengths", "0:8:0.5", "--threshold", "0.001", "--guard", "3", "--tolerance", "0.1", "--out", out]
    done = command(*asked)
    assert done.status == 0, done
    table = pd.read_parquet(out / "crossings.parquet")
    assert len(table) == 6
    passes = 8 * int(table.points.sum())
    assert (
        f"perturbed-token passes: {passes:,}, {passes / (6 * 17 * 8):.1%} of the 816 passes of a full scan" in done.out
    )
    assert f"{table.crossing_at.median():.4g} [" in done.out
    asked_for = json.loads((out / "manifest.json").read_text())["identity"]["crossings"]
    assert asked_for == {"threshold": 0.001, "fraction": None, "guard": 3, "tolerance": 0.1}
    page = (out / "report.html").read_text()
    assert "Where curves cross" in page and (out / "figures" / "crossings.svg").stat().st_size > 10_000
    drawn = pd.read_csv(out / "tables" / "crossings.csv")
    assert drawn[drawn.x_end.notna()].y.sum() == table.crossing_at.notna().sum()  # each in one bin
    (out / "report.html").unlink()
    assert command("report", out).out.count(f"{table.crossing_at.median():.4g} [") == 1
    assert (out / "report.html").read_text() == page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lengths", "0:8:1"], "give a threshold or a fraction"),
        (["--threshold", "1"], "Give one of --lengths and --angles"),
        (["--threshold", "1", "--lengths", "0,1", "--angles", "0,1"], "Give one of --lengths and --angles"),
        (["--threshold", "1", "--lengths", "5"], "single point"),
        (["--threshold", "1", "--lengths", "0:8:1", "--readout", "loss"], "does not grow from zero"),
        (["--threshold", "1", "--lengths", "0:8:1", "--tolerance", "1e-9"], "float32"),
        (["--threshold", "1", "--lengths", "0:8:1", "--direction", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(given, tmp_path, options, words):
    assert words in refusal(*given, *options, "--out", tmp_path / "run")
