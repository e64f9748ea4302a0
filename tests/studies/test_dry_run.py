"""What the dry run of a study says is what the study then does; and it leaves nothing behind."""

import json
from dataclasses import replace

import pytest

import tiltmeter as tm
from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs import run_directory
from tiltmeter.studies import dry_run, run
from tiltmeter.studies.columns import control_columns
from tiltmeter.studies.dry_run import forecast_study
from tiltmeter.studies.results import NotMeasured
from tiltmeter.studies.run import StudyRun, measure
from tiltmeter.studies.study import Study, SweepExperiment
from tiltmeter.studies.subject import make_subject
from tiltmeter.sweeps import measure as measuring
from tiltmeter.sweeps import trials
from tiny_models import tiny

TOKENS = token_set(sequences=40)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Nothing is timed twice."""
    monkeypatch.setattr(trials, "REPEATS", 1)


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="small")


def experiments(subject, _):
    """A sweep at each of two layers, one on fewer points that is not controlled, and one that needs an SAE."""

    def sweep(layer, lengths, **more):
        path, site = tm.Straight(lengths=lengths), f"resid_pre:{layer}"
        given = {"directions": ("isotropic", "real-difference"), "sequences": 6, "shard": 4, "pool": 50} | more
        return SweepExperiment(tm.Sweep(site=site, path=path, **given))

    saes = tuple(sae.name for sae in subject.saes)
    of_saes = sweep(1, (0.1, 1), directions=("sae-error",), saes=saes) if saes else NotMeasured("No SAE was given.")
    return {
        **{f"layers-{layer}": sweep(layer, (0.1, 1, 2)) for layer in range(2)},
        "alone": sweep(1, (0.1, 1)),
        "errors": of_saes,
    }


STUDY = Study(
    name="toy",
    citation="nobody",
    length=8,
    depth=0.5,
    experiments=experiments,
    figures={},
    claims=(),
    presets={},
    uncontrolled=frozenset({"alone"}),
)


def request(loaded, saes=(), seeds=1):
    subject = make_subject(STUDY, loaded, 1, saes, 0)
    return StudyRun(
        STUDY, "quick", subject, TOKENS, lambda: token_set(sequences=80), control_columns(("initialised",), 0, seeds)
    )


def forecast(asked, out):
    return forecast_study(asked, out, out / "control-saes", set())


def test_counts_are_those_of_the_study_and_nothing_is_written(loaded, tmp_path, monkeypatch):
    asked, out, moved, readouts = request(loaded), tmp_path / "study", [], measuring._readouts
    with monkeypatch.context() as patched:
        patched.setattr(run_directory, "_write", lambda *_: pytest.fail("something was written"))
        found = forecast(asked, out)
    assert not out.exists()

    def counted(batch, change):
        moved.append(int((change != 0).any(-1).sum()))
        return readouts(batch, change)

    with monkeypatch.context() as patched:
        patched.setattr(measuring, "_readouts", counted)
        assert measure(asked, out) == []
    assert found.columns == ("model", "control/initialised-0")
    assert found.sweeps == len([*out.rglob("curves.nc")]) == 5 and len(found.kinds) == 2
    assert (found.left_out, found.saes, found.trainings) == (1, 0, 0)
    assert sum(one.perturbed_passes for one in found.kinds) == len(moved)
    assert found.perturbed_tokens == sum(moved)
    assert found.shards == (0, len([*out.rglob("shard-*.safetensors")])) and found.seconds_left == found.seconds

    again = forecast(asked, out)
    assert again.shards == (found.shards[1], found.shards[1])
    assert "10 of 10 shards are done" in str(again) and again.seconds_left < again.seconds
    with pytest.raises(TiltmeterError, match="another configuration"):
        forecast(replace(asked, size="default"), out)


def test_the_sweep_in_the_middle_of_a_kind_is_tried_and_the_others_need_as_much(loaded, tmp_path, monkeypatch):
    tried, real = [], dry_run.try_run

    def try_run(sweep, plan, loaded):
        tried.append(real(sweep, plan, loaded)._replace(other=float(len(tried)), once=0.0, statistics=0.0))
        return tried[-1]

    monkeypatch.setattr(dry_run, "try_run", try_run)
    found = forecast(request(loaded), tmp_path / "study")
    layers, alone = tried
    assert [one.plan.site.layer for one in tried] == [1, 1]
    seconds = 4 * layers.measuring["shard"] + 1.0 + alone.measuring["shard"]
    assert found.seconds == pytest.approx(seconds)
    assert found.disk == 4 * layers.disk + alone.disk
    assert found.memory == max(one.memory for one in tried) + sum(
        one.numel() * one.element_size() for one in loaded.model.hf.parameters()
    )
    assert "one sweep of each kind" in str(found) and json.dumps(found.to_json())


def test_control_sae_s_are_counted_and_the_training_of_one_is_tried(loaded, tmp_path, monkeypatch):
    monkeypatch.setitem(run.CONTROL_TOKENS, "quick", 1024)
    sae = save_sae(tmp_path / "sae")
    facts = json.loads((sae / "cfg.json").read_text())
    (sae / "cfg.json").write_text(json.dumps(facts | {"metadata": facts["metadata"] | {"l0": 3.0}}))
    asked, out = request(loaded, (str(sae),), 2), tmp_path / "study"
    found = forecast(asked, out)
    assert (found.saes, found.trainings, found.trainings_done, found.left_out) == (1, 2, 0, 0)
    assert found.training_seconds > 0
    assert found.seconds == pytest.approx(2 * found.training_seconds + sum(one.seconds for one in found.kinds))
    assert "2 are trained on controls, on 1,024 tokens each" in str(found)
    (out / "control-saes" / "initialised-1" / "sae" / "sae").mkdir(parents=True)
    (out / "manifest.json").write_bytes(run_directory.manifest_bytes(run.study_identity(asked), {}))
    monkeypatch.setattr(dry_run, "_forecasts", lambda *_: ())
    assert forecast(asked, out).trainings_done == 1
    shared = {out / "control-saes" / f"initialised-{seed}" / "sae" for seed in (0, 1)}
    assert forecast_study(asked, out, out / "control-saes", shared).trainings == 0


def test_the_folder_of_something_else_is_refused(loaded, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(TiltmeterError, match="not a run"):
        forecast(request(loaded), tmp_path)
