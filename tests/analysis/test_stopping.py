"""A sweep that stops when its means are known: where, on what, and what it says; the same however it was killed."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from sweep_cases import command, refusal, save_model, save_tokens, token_set
from tiltmeter.analysis import curves
from tiltmeter.analysis.confidence_sequences import FIRST_LOOK, half_width
from tiltmeter.analysis.intervals import MeanInterval
from tiltmeter.analysis.stopping import Stopped, least_known
from tiltmeter.cli.parsing import relative_precision
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Straight
from tiltmeter.reports.sweep import publish
from tiltmeter.runs.rng import random_order
from tiltmeter.runs.run_directory import read_manifest
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep
from tiny_models import tiny

TABLES = ("curves.nc", "summary.csv", "summary.parquet")
MOST, GOAL = 320, 0.1
SWEEP = Sweep(
    site="resid_pre:1",
    directions=("isotropic", "real-mixture"),
    path=Straight(lengths=(0.0, 1.0, 4.0)),
    readouts=("kl", "l2@resid_post:2"),
    sequences=MOST,
    statistics_sequences=64,
    pool=200,
    until_ci=GOAL,
)


def changed(**changes):
    return SWEEP.model_copy(update=changes)


def some_tokens():
    return token_set(sequences=MOST)


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel(SplitModel(tiny("gpt2"), "tiny"), None, {"name": "tiny", "sha256": "of this test"})


@pytest.fixture(scope="module")
def whole(loaded, tmp_path_factory):
    """The same sweep of all sequences."""
    return run_sweep(changed(until_ci=None), loaded, some_tokens(), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def reference(loaded, tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "run"
    return path, run_sweep(SWEEP, loaded, some_tokens(), path)


def contents(run):
    return {name: (run / name).read_bytes() for name in TABLES}


def naive_widest(found):
    """The largest half of an interval as a share of its mean, of what moves."""
    shares = []
    for readout in ("kl", "l2@blocks.2.hook_resid_post"):
        for direction in found.direction:
            for step in found.step[1:]:
                values = found[readout].sel(direction=direction, step=step).values
                half = half_width(np.array(len(values)), np.array(values.std(ddof=1)))
                shares.append(float(half / values.mean()))
    return max(shares)


def test_it_stops_at_the_first_shard_at_which_every_mean_is_known(reference, whole):
    _, found = reference
    used = found.sizes["sequence"]
    assert FIRST_LOOK < used < MOST
    order = random_order(MOST, SWEEP.seed)
    assert set(found.sequence.values) == set(order[:used])
    assert naive_widest(found) <= GOAL
    for fewer in range(FIRST_LOOK, used, SWEEP.shard):
        assert naive_widest(whole.sel(sequence=list(order[:fewer]))) > GOAL


def test_its_values_are_those_of_the_whole_sweep(reference, whole):
    _, found = reference
    assert found.sequence.to_index().is_monotonic_increasing
    for name in (*curves.readout_names(found), "tokens"):
        xr.testing.assert_allclose(found[name], whole[name].sel(sequence=found.sequence), rtol=1e-9, atol=1e-12)
    assert "stopping" not in whole.attrs
    assert Stopped.of_curves(whole) is None


def test_its_table_has_time_uniform_intervals_and_the_whole_sweep_s_the_bootstrap_s(reference, whole):
    path, found = reference
    table = pd.read_csv(path / "summary.csv")
    assert (table.n == found.sizes["sequence"]).all()
    row = table[(table.direction == "isotropic") & (table.step == 4) & (table.readout == "kl")].iloc[0]
    values = found.kl.sel(direction="isotropic", step=4).values
    half = float(half_width(np.array(len(values)), np.array(values.std(ddof=1))))
    assert row["mean"] == pytest.approx(values.mean())
    assert (row.low, row.high) == pytest.approx((values.mean() - half, values.mean() + half))
    plain = curves.summary(whole).query("direction == 'isotropic' and step == 4 and readout == 'kl'").iloc[0]
    assert plain.high - plain.low < row.high - row.low


def test_it_says_what_it_took(reference):
    path, found = reference
    used = found.sizes["sequence"]
    stopped = Stopped.of_curves(found)
    assert (stopped.sequences, stopped.at_most, stopped.tokens, stopped.reached) == (used, MOST, 8 * used, True)
    assert stopped.widest == pytest.approx(naive_widest(found))
    assert json.loads(found.attrs["stopping"])["reached"] is True
    assert Stopped.of_curves(curves.load(path / "curves.nc")) == stopped
    assert read_manifest(path)["identity"]["sweep"]["until_ci"] == GOAL
    page = publish(path).read_text("utf-8")
    saved = round(100 * (1 - used / MOST))
    assert f"Stopped after {used} of {MOST} sequences ({8 * used:,} tokens; {saved} % saved), because every" in page
    assert "are time-uniform 95 % intervals of the mean" in page
    assert "bootstrap" not in stopped.sentence


def test_kept_positions_stop_at_the_same_place(reference, loaded, tmp_path):
    _, found = reference
    kept = run_sweep(changed(keep_positions=True), loaded, some_tokens(), tmp_path / "run")
    xr.testing.assert_equal(kept.sequence, found.sequence)
    assert Stopped.of_curves(kept).widest == pytest.approx(Stopped.of_curves(found).widest)


def test_another_seed_takes_other_sequences(reference, loaded, tmp_path):
    other = run_sweep(changed(seed=1), loaded, some_tokens(), tmp_path / "run")
    assert set(other.sequence.values) != set(reference[1].sequence.values)


def test_killed_between_shards_it_ends_with_the_same_bytes(reference, loaded, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(reference[0], path)
    for name in TABLES:
        (path / name).unlink()
    for shard in sorted((path / "shards").glob("shard-*"))[3::2]:
        shard.unlink()
    run_sweep(SWEEP, loaded, some_tokens(), path)
    assert contents(path) == contents(reference[0])


def test_shards_behind_the_stop_change_nothing(reference, loaded, tmp_path):
    """As they lie there when several processes share a run, or when its rule was less strict."""
    path, more = tmp_path / "run", tmp_path / "more"
    shutil.copytree(reference[0], path)
    run_sweep(changed(until_ci=0.001), loaded, some_tokens(), more)
    behind = {file.name for file in (more / "shards").iterdir()} - {file.name for file in (path / "shards").iterdir()}
    assert len(behind) > 2
    for name in behind:
        shutil.copy(more / "shards" / name, path / "shards" / name)
    run_sweep(SWEEP, loaded, some_tokens(), path)
    assert contents(path) == contents(reference[0])


def test_where_sequences_run_out_it_warns(loaded, tmp_path, caplog):
    found = run_sweep(changed(until_ci=0.01), loaded, some_tokens(), tmp_path / "run")
    stopped = Stopped.of_curves(found)
    assert found.sizes["sequence"] == MOST
    assert not stopped.reached
    assert f"Took all {MOST} sequences ({8 * MOST:,} tokens), and not every mean is known to ±1 %" in caplog.text
    assert stopped.of in stopped.sentence
    assert curves.summary(found).query("readout != 'length' and step > 0").eval("high - low > 0").all()


def table(**readouts):
    """Curves of one direction at the steps 0 and 1, and their means: (mean, half, n) at each."""
    names = [*readouts, "length"]
    numbers = np.array([[readouts.get(name, (1.0, 9.0, 200))] * 2 for name in names]).transpose(1, 0, 2)[None]
    axes = curves.Axes(["d"], [0.0, 1.0], "L2", range(3))
    data = curves.build({name: np.zeros((1, 2, 3)) for name in names}, np.ones((1, 3), int), axes, {})
    mean, half, n = np.moveaxis(numbers, -1, 0)
    return data, mean, half, n.astype(int)


def worst(change=lambda mean, half, n: None, **readouts):
    data, mean, half, n = table(**readouts)
    change(mean, half, n)
    return least_known(MeanInterval(mean, mean - half, mean + half, n), data)


def test_what_counts_as_known():
    found = worst(kl=(2.0, 0.1, 200), js=(0.5, 0.02, 200))
    assert found == (pytest.approx(0.05), "kl along d at 1")

    def noise_at_zero(mean, half, n):
        mean[0, 0], half[0, 0] = 1e-15, 1e-14

    assert worst(noise_at_zero, kl=(2.0, 0.1, 200))[0] == pytest.approx(0.05)
    assert worst(**{"kl": (2.0, 0.1, 200), "cos@x": (0.001, 0.03, 200)})[0] == pytest.approx(0.05)
    assert worst(**{"kl": (2.0, 0.1, 200), "cos@x": (0.9, 0.06, 200)}) == (pytest.approx(0.06), "cos@x along d at 1")
    assert worst(kl=(1e-12, 1e-14, 200))[0] == pytest.approx(0.01)
    assert worst(kl=(np.nan, np.nan, 0), js=(0.5, 0.02, 200))[0] == pytest.approx(0.04)
    assert worst(kl=(2.0, np.nan, 100), js=(0.5, 0.02, 200)) == (np.inf, "kl along d at 1")
    assert worst(kl=(0.0, 0.1, 200))[0] == np.inf
    assert worst(kl=(0.0, 0.0, 200))[0] == np.inf
    assert worst(kl=(2.0, 0.0, 200), js=(0.5, 0.02, 200)) == (np.inf, "kl along d at 1"), "equal so far: not known"
    assert worst(kl=(np.nan, np.nan, 0))[0] == 0


def test_the_sentences():
    stopped = Stopped(0.02, 1000, 400, 128, 0.019, "kl along d at 1")
    assert stopped.sentence == (
        "Stopped after 400 of 1,000 sequences (51,200 tokens; 60 % saved), because every mean is known to ±2 % "
        "(time-uniform 95 % intervals). Lee & Heimersheim 2024 took 2 million tokens, 39 times as many. "
        "Intervals say nothing of values that did not occur: what occurs in 0.75 % of sequences is missing from 400 of "
        "them with a probability of 5 %, and anything rarer more often."
    )
    assert 0.049 < (1 - 0.0075) ** 400 < 0.051
    out = Stopped(0.02, 1000, 1000, 128, 0.04, "kl along d at 1")
    assert out.sentence == (
        "Took all 1,000 sequences (128,000 tokens), and not every mean is known to ±2 % (time-uniform 95 % intervals): "
        "kl along d at 1 is known to ±4 %, and the goal takes about 4,000 sequences."
    )
    none = Stopped(0.02, 1000, 1000, 128, None, "kl along d at 1")
    assert none.sentence.endswith(
        f"kl along d at 1 has no interval, which takes {FIRST_LOOK} sequences that are not all equal."
    )


@pytest.mark.parametrize("text", ["2%", "2 %", "0.02", " 2% ", "2.0%"])
def test_shares_as_users_write_them(text):
    assert relative_precision(text) == pytest.approx(0.02)


@pytest.mark.parametrize("text", ["two", "", "%", "2", "60%", "0", "0%", "-2%", "nan", "2%%", "2% or so", "inf"])
def test_invalid_relative_precisions(text):
    with pytest.raises(TiltmeterError, match="is not a valid relative precision; give more than 0") as refused:
        relative_precision(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("wrong", [0, -0.1, 0.6, float("nan")])
def test_goals_of_a_sweep_are_shares(wrong):
    with pytest.raises(TiltmeterError, match=r"^until_ci was"):
        Sweep(site="resid_pre:1", path=Straight(lengths=(1.0,)), until_ci=wrong)


def test_fewer_sequences_than_the_first_look_are_refused(loaded, tmp_path):
    with pytest.raises(TiltmeterError, match=f"the first look is after {FIRST_LOOK}"):
        run_sweep(changed(sequences=FIRST_LOOK - 1), loaded, some_tokens(), tmp_path / "run")


def test_the_command(tmp_path):
    model, tokens = save_model(tmp_path / "model"), save_tokens(tmp_path / "tokens.npy", sequences=MOST)
    given = ["sweep", "--model", model, "--tokens", tokens, "--site", "resid_pre:1", "--direction", "isotropic"]
    given += ["--lengths", "0,4", "--out", tmp_path / "run"]
    done = command(*given, "--until-ci", "10 %")
    assert done.status == 0, done
    assert f"at most {MOST} sequences of 8 are measured" in done.err
    assert f"of {MOST} sequences (" in done.out
    assert "because every mean is known to ±10 %" in done.out
    assert command("report", tmp_path / "run").status == 0
    again = command(*given, "--until-ci", "10 %")
    assert again.status == 0 and "because every mean is known to ±10 %" in again.out
    assert "another configuration (sweep.until_ci is 0.1 there, 0.2 here)" in refusal(*given, "--until-ci", "20%")
    assert "is not a valid relative precision" in refusal(*given, "--until-ci", "2")
    given[-1] = tmp_path / "out"
    ran_out = command(*given, "--until-ci", "0.1%", "--sequences", 150)
    assert ran_out.status == 0, ran_out
    assert "because every mean" not in ran_out.out
    assert "Took all 150 sequences" in (tmp_path / "out" / "report.html").read_text("utf-8")
    given[-1] = tmp_path / "few"
    assert "the first look is after" in refusal(*given, "--until-ci", "2%", "--sequences", 100)


def test_the_statistics_do_not_depend_on_the_order(reference, whole):
    assert torch.tensor(float(reference[1].attrs["pair_distance"])) == float(whole.attrs["pair_distance"])
