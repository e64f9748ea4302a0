"""A sweep into a run directory: the same numbers however it is cut, killed or called; and never those of another."""

import json
import os
import signal
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from forked import until
from sweep_cases import refusal, save_model, save_tokens, start, token_set
from tiltmeter.analysis import curves
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.fingerprint import model_sha256
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Sphere, Straight
from tiltmeter.runs import run_directory
from tiltmeter.sweeps import run
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep
from tiny_models import WIDTH, tiny

TABLES = ("curves.nc", "summary.csv", "summary.parquet")
SMALL = Sweep(
    site="resid_pre:1",
    directions=("isotropic", "cov-random-mixture", "real-difference"),
    path=Straight(lengths=(0.0, 0.5, 5.0)),
    readouts=("kl", "l2@resid_post:2"),
    sequences=10,
    shard=4,
    pool=50,
)


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel(SplitModel(tiny("gpt2"), "tiny"), None, {"name": "tiny", "sha256": "of this test"})


def scaled(factor):
    """The model of these tests with all its weights multiplied."""
    hf = deepcopy(tiny("gpt2"))
    for parameter in hf.parameters():
        parameter.data.mul_(factor)
    return SplitModel(hf, "tiny")


def changed(**changes):
    return SMALL.model_copy(update=changes)


def contents(run, names=TABLES):
    return {name: (run / name).read_bytes() for name in names}


def shards(run):
    """When each finished shard was written."""
    return {file.name: file.stat().st_mtime_ns for file in sorted((Path(run) / "shards").glob("shard-*.safetensors"))}


@pytest.fixture(scope="module")
def reference(loaded, tmp_path_factory):
    """The small sweep, as it is asked for."""
    path = tmp_path_factory.mktemp("reference") / "run"
    return path, run_sweep(SMALL, loaded, token_set(), path)


def test_the_run_holds_labelled_curves_and_their_tables(reference, loaded):
    path, found = reference
    assert dict(found.sizes) == {"direction": 3, "step": 3, "sequence": 10}
    assert curves.readout_names(found) == ["kl", "l2@blocks.2.hook_resid_post", "length"]
    assert found.attrs["site"] == "blocks.1.hook_resid_pre"
    assert found.identical(curves.load(path / "curves.nc"))
    table = curves.summary(found)
    assert (path / "summary.csv").read_bytes() == curves.to_csv(table)
    manifest = run_directory.read_manifest(path)
    names = {"site": found.attrs["site"], "readouts": tuple(curves.readout_names(found)[:-1])}  # whichever way written
    assert Sweep.model_validate(manifest["identity"]["sweep"]) == SMALL.model_copy(update=names)
    assert manifest["identity"]["tokens"]["sha256"] == token_set().sha256()
    assert manifest["identity"]["model"]["sha256"] == model_sha256(loaded.model.hf)
    assert json.loads(found.attrs["manifest"])["identity"] == manifest["identity"]


def test_lengths_are_those_asked_for_and_length_zero_changes_nothing(reference):
    _, found = reference
    for k, length in enumerate(SMALL.path.lengths):
        np.testing.assert_allclose(found.length[:, k], length, rtol=1e-12, atol=1e-13)
    assert np.abs(found.kl.sel(step=0)).max() < 1e-14
    assert found["l2@blocks.2.hook_resid_post"].sel(step=0).max() < 1e-12
    assert found.kl.sel(step=5.0).min() > 1e-3


@pytest.mark.parametrize(
    "cut", [{"shard": 1}, {"shard": 100}, {"batch_tokens": 1}, {"batch_tokens": 100}, {"shard": 3, "batch_tokens": 40}]
)
def test_numbers_do_not_depend_on_how_the_sweep_is_cut(reference, loaded, tmp_path, cut):
    _, whole = reference
    pieces = run_sweep(changed(**cut), loaded, token_set(), tmp_path / "run")
    for name in curves.readout_names(whole):
        xr.testing.assert_allclose(pieces[name], whole[name], rtol=1e-12, atol=1e-13)
    xr.testing.assert_equal(pieces.tokens, whole.tokens)


def test_numbers_do_not_depend_on_what_else_is_measured(reference, loaded, tmp_path):
    _, whole = reference
    fewer = changed(directions=("real-difference",), path=Straight(lengths=(5.0,)), sequences=3, readouts=("kl",))
    found = run_sweep(fewer, loaded, token_set(), tmp_path / "run")
    wanted = whole.kl.sel(direction=["real-difference"], step=[5.0], sequence=range(3))
    xr.testing.assert_allclose(found.kl, wanted, rtol=1e-12, atol=1e-13)


def test_another_seed_gives_other_numbers(reference, loaded, tmp_path):
    _, whole = reference
    found = run_sweep(changed(seed=1), loaded, token_set(), tmp_path / "run")
    assert (found.kl.sel(step=5.0) != whole.kl.sel(step=5.0)).all()


def test_the_same_sweep_under_another_name_gives_the_same_bytes(reference, loaded, tmp_path):
    path, _ = reference
    run_sweep(SMALL, loaded, token_set(), tmp_path / "another" / "name")
    assert contents(tmp_path / "another" / "name") == contents(path)
    assert [*shards(tmp_path / "another" / "name")] == [*shards(path)]  # names end in hashes of the contents


def test_a_finished_run_is_not_measured_again(loaded, tmp_path, monkeypatch):
    run_sweep(SMALL, loaded, token_set(), tmp_path / "run")
    before, written = contents(tmp_path / "run"), shards(tmp_path / "run")
    assert len(written) == 3
    monkeypatch.setattr(run, "measure_shard", None)
    monkeypatch.setattr(run, "fit_statistics", None)
    run_sweep(SMALL, loaded, token_set(), tmp_path / "run")
    assert contents(tmp_path / "run") == before
    assert shards(tmp_path / "run") == written


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_shard_is_computed_again(reference, loaded, tmp_path, damage):
    run_sweep(SMALL, loaded, token_set(), tmp_path / "run")
    written = shards(tmp_path / "run")
    victim = tmp_path / "run" / "shards" / list(written)[1]
    data = bytearray(victim.read_bytes())
    data[-9] ^= 1
    {"flip": lambda: victim.write_bytes(data), "cut": lambda: os.truncate(victim, 99), "remove": victim.unlink}[
        damage
    ]()
    run_sweep(SMALL, loaded, token_set(), tmp_path / "run")
    after = shards(tmp_path / "run")
    assert [name for name in after if after[name] != written.get(name)] == [victim.name]
    assert contents(tmp_path / "run") == contents(reference[0])


def test_an_interrupted_sweep_goes_on(reference, loaded, tmp_path, monkeypatch):
    measured = []

    def interrupted(plan, directions, path, sequences, *others):
        if sequences.start == 8 and len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(sequences)
        return measure(plan, directions, path, sequences, *others)

    measure = run.measure_shard
    monkeypatch.setattr(run, "measure_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(SMALL, loaded, token_set(), tmp_path / "run")
    assert not (tmp_path / "run" / "curves.nc").exists()
    measured.append("go on")
    run_sweep(SMALL, loaded, token_set(), tmp_path / "run")
    assert measured == [range(4), range(4, 8), "go on", range(8, 10)]
    assert contents(tmp_path / "run") == contents(reference[0])


class Counted(list):
    """What is told of the progress of a run: the total, and every number of steps that were taken or skipped."""

    @contextmanager
    def __call__(self, total, what):
        self.append((what, total))
        yield self

    def take(self, number):
        self.append(("take", number))

    def skip(self, number):
        self.append(("skip", number))


def test_progress_moves_within_a_shard(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "counted_steps", counted := Counted())
    wanted = changed(batch_tokens=32)  # one direction of one sequence at once
    run_sweep(wanted, loaded, token_set(), tmp_path / "run")
    assert counted == [("points", 10 * 3 * 3)] + 10 * 3 * [("take", 3)]
    counted.clear()
    run_sweep(wanted, loaded, token_set(), tmp_path / "run")
    assert counted[1:] == [("skip", 36), ("skip", 36), ("skip", 18)]


def test_progress_of_a_sweep_of_many_directions_at_once(loaded, monkeypatch):
    monkeypatch.setattr(run, "counted_steps", counted := Counted())
    run_sweep(SMALL, loaded, token_set())
    (_, total), *told = counted
    assert sum(number for _, number in told) == total


def test_pair_distance_as_unit(reference, loaded, tmp_path):
    _, whole = reference
    path = Straight(lengths=(0.0, 0.25, 2.0), unit="pair-distance")
    found = run_sweep(changed(path=path), loaded, token_set(), tmp_path / "run")
    distance = whole.attrs["pair_distance"]
    assert found.step.attrs["units"] == "L2"
    assert (whole.attrs["path_unit"], found.attrs["path_unit"]) == ("absolute", "pair-distance")
    for k, length in enumerate(path.lengths):
        np.testing.assert_allclose(found.length[:, k], length * distance, rtol=1e-5, atol=1e-13)
    np.testing.assert_allclose(found.step, found.length[0, :, 0], rtol=1e-12)


def naive_pair_distance(model, tokens):
    """Mean distance of any two activations of different sequences, without boundary positions."""
    with torch.no_grad():
        stream = model.hf(tokens.ids, output_hidden_states=True).hidden_states[1][:, 1:]
    x = stream - stream.mean(-1, keepdim=True)
    distances = (x[:, :, None, None] - x[None, None]).norm(dim=-1)
    others = ~torch.eye(len(x), dtype=torch.bool)[:, None, :, None].expand_as(distances)
    return float(distances[others].mean())


def test_the_mean_pair_distance_is_told(loaded, tmp_path):
    found = run_sweep(changed(pool=1000), loaded, token_set(), tmp_path / "run")
    assert found.attrs["pair_distance"] == pytest.approx(naive_pair_distance(loaded.model, token_set()), rel=0.03)


def test_along_a_vector(loaded, tmp_path):
    vector = np.random.default_rng(0).normal(size=WIDTH)
    for name, value in {"v": vector, "thrice": 3 * vector + 7, "back": -vector}.items():
        np.save(tmp_path / f"{name}.npy", value)
    names = tuple(f"along:{tmp_path}/{name}.npy" for name in ("v", "thrice", "back"))
    found = run_sweep(changed(directions=names), loaded, token_set(), tmp_path / "run")
    kl = {str(name): found.kl.sel(direction=name).values for name in found.direction.values}
    np.testing.assert_allclose(kl["along:v.npy"], kl["along:thrice.npy"], rtol=1e-9, atol=1e-13)  # only where it points
    assert (kl["along:v.npy"][1:] != kl["along:back.npy"][1:]).all()
    (digest,) = {run_directory.read_manifest(tmp_path / "run")["identity"]["vectors"]["along:v.npy"]}
    assert len(digest) == 64


def test_a_sphere_keeps_the_norm_and_ends_opposite(loaded, tmp_path):
    path = Sphere(degrees=(0.0, 90.0, 180.0))
    found = run_sweep(changed(path=path, keep_positions=True), loaded, token_set(), tmp_path / "run")
    assert found.step.attrs["units"] == "degrees"
    assert np.abs(found.kl.sel(step=0)).max() < 1e-13
    half, whole = found.length.sel(step=90), found.length.sel(step=180)
    xr.testing.assert_allclose(half.drop_vars("step"), whole.drop_vars("step") / np.sqrt(2), rtol=1e-9)
    for direction in found.direction[1:]:  # every way round ends at the antipode
        one, other = (found.kl.sel(step=180, direction=name) for name in (found.direction[0], direction))
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert (found.kl.sel(step=90)[0] != found.kl.sel(step=90)[1]).any()


def test_kept_positions_average_to_the_means(reference, loaded, tmp_path):
    _, whole = reference
    kept = run_sweep(changed(keep_positions=True), loaded, token_set(), tmp_path / "run")
    assert kept.sizes["position"] == 8
    for name in curves.readout_names(whole):
        xr.testing.assert_allclose(kept[name].mean("position"), whole[name], rtol=1e-9, atol=1e-12)


def test_tokens_without_a_direction_are_left_out(loaded, tmp_path):
    """All sequences are equal, so every activation of another sequence at the same position is x itself."""
    equal = token_set(sequences=4, length=3)
    equal.ids[:] = equal.ids[0]
    lost = changed(directions=("real-difference", "isotropic"), sequences=4)
    found = run_sweep(lost, loaded, equal, tmp_path / "run")
    tokens = found.tokens.sel(direction="real-difference")
    assert (found.tokens.sel(direction="isotropic") == 3).all()
    assert 0 < int((3 - tokens).sum()) < 12  # half of the drawn activations are those of the other position
    drawn = found.kl.sel(direction="real-difference")
    assert (drawn.sel(step=5.0).where(tokens > 0, 1) > 1e-3).all()


def refused(sweep, loaded, tokens, path):
    with pytest.raises(TiltmeterError) as found:
        run_sweep(sweep, loaded, tokens, path)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_a_changed_sweep_never_continues_an_old_run(loaded, tmp_path):
    path = tmp_path / "run"
    np.save(tmp_path / "v.npy", np.ones(WIDTH) + np.eye(WIDTH)[0])
    first = changed(directions=(f"along:{tmp_path}/v.npy",))
    run_sweep(first, loaded, token_set(), path)
    before = contents(path, (*TABLES, "manifest.json")), shards(path)

    assert "sweep.seed is 0 there, 1 here" in refused(first.model_copy(update={"seed": 1}), loaded, token_set(), path)
    longer = first.model_copy(update={"path": Straight(lengths=(0.0, 0.5, 6.0))})
    assert "sweep.path.lengths.2 is 5.0 there, 6.0 here" in refused(longer, loaded, token_set(), path)
    other = LoadedModel(scaled(0.3), None, loaded.facts)
    assert "model.sha256 is" in refused(first, other, token_set(), path)
    assert "tokens.sha256 is" in refused(first, loaded, token_set(seed=1), path)
    np.save(tmp_path / "v.npy", np.eye(WIDTH)[0])
    assert "vectors.along:v.npy is" in refused(first, loaded, token_set(), path)

    assert (contents(path, (*TABLES, "manifest.json")), shards(path)) == before
    np.save(tmp_path / "v.npy", np.ones(WIDTH) + np.eye(WIDTH)[0])
    run_sweep(first, loaded, token_set(), path)  # the old configuration still goes on
    assert shards(path) == before[1]


def test_changed_code_never_continues_an_old_run(loaded, tmp_path, monkeypatch):
    run_sweep(SMALL, loaded, token_set(), tmp_path / "run")
    monkeypatch.setattr(run_directory, "code_sha256", lambda: "0" * 64)
    assert "; choose another directory" in (sentence := refused(SMALL, loaded, token_set(), tmp_path / "run"))
    assert "code is" in sentence


def test_a_run_checks_itself_before_it_measures(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded.model, "resume", lambda clean, x: clean.late)
    assert "tiny cannot be split at blocks.1.hook_resid_pre" in refused(SMALL, loaded, token_set(), tmp_path / "run")
    assert shards(tmp_path / "run") == {}


def test_a_run_directory_that_is_no_path_is_refused(loaded):
    with pytest.raises(TiltmeterError, match="A path was expected, and this is of type int"):
        run_sweep(changed(), loaded, token_set(), 3)


def test_vectors_of_another_width_are_refused(loaded, tmp_path):
    np.save(tmp_path / "v.npy", np.ones(WIDTH + 1))
    wide = changed(directions=(f"along:{tmp_path}/v.npy",))
    assert f"has width {WIDTH + 1}, but those at this site {WIDTH}" in refused(
        wide, loaded, token_set(), tmp_path / "r"
    )


def test_one_sequence_has_no_other_to_draw_from(loaded, tmp_path):
    assert "sequences" in refused(changed(sequences=1), loaded, token_set(sequences=1), tmp_path / "run")


def test_killed_by_the_system_the_same_command_goes_on_to_the_same_bytes(tmp_path):
    model, tokens = save_model(tmp_path / "model"), save_tokens(tmp_path / "tokens.npy", sequences=128, length=12)
    arguments = ("sweep", "--model", model, "--tokens", tokens, "--site", "resid_pre:0", "--lengths", "0:20:4")
    arguments += ("--direction", "isotropic", "--direction", "real-mixture", "--sequences", 128, "--out")
    killed = tmp_path / "killed"

    with start(*arguments, killed) as process:
        until(lambda: len(shards(killed)) >= 2 or process.poll() is not None)
        process.send_signal(signal.SIGSTOP)
        assert "is in use by another process" in refusal(*arguments, killed)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    left = shards(killed)
    assert 2 <= len(left) < 8
    assert not (killed / "curves.nc").exists()
    assert "has not finished" in refusal("report", killed)

    for place in (killed, tmp_path / "whole"):
        with start(*arguments, place) as process:
            assert process.wait() == 0, process.communicate()
    assert len(shards(killed)) == 8
    assert left.items() <= shards(killed).items()  # not one was written again
    assert contents(killed) == contents(tmp_path / "whole")
