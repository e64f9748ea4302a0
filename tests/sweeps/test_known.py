"""The directory of another run is refused before a model is loaded; that of the same run never is."""

import numpy as np
import pytest
import torch

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.run_directory import open_run
from tiltmeter.sweeps.known import refuse_other_run
from tiltmeter.sweeps.plan import make_plan
from tiltmeter.sweeps.records import identity
from tiny_models import WIDTH, tiny

TOKENS = token_set()

GIVEN = {"site": "resid_pre:1", "directions": ("isotropic",), "path": tm.Straight(lengths=(0, 1))}

SWEEPS = [
    {},
    {"site": "blocks.1.hook_resid_pre", "readouts": ("kl", "l2@resid_post:2", "prob:#3")},
    {"site": " resid_pre:1", "readouts": ("l2@blocks.2.hook_resid_post", "l2@module:transformer.h.2.mlp")},
    {"site": "module:transformer.h.1.mlp", "directions": {"mine": torch.ones(WIDTH), "isotropic": ...}},
    {"sequences": 5, "seed": 3, "bos": tm.BosPolicy(average="out"), "path": tm.Sphere(degrees=(0, 30))},
    {"readouts": {"mine": tm.versioned(lambda clean, change: change.logits.sum(-1), version="1"), "kl": ...}},
]


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="small")


def stored(sweep, loaded, out, results=True):
    """A run directory of a sweep, with something in it."""
    plan = make_plan(sweep, loaded.model, TOKENS)
    with open_run(out, identity(plan, loaded), dict) as run:
        if results:
            run.save("shard-00000", {"kl": np.zeros(1)})
    return out


@pytest.mark.parametrize("changes", SWEEPS)
def test_the_same_sweep_goes_on(loaded, changes, tmp_path):
    out = stored(tm.Sweep(**GIVEN | changes), loaded, tmp_path / "run")
    refuse_other_run(out, tm.Sweep(**GIVEN | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"site": "resid_pre:2"}, "sweep.site is"),
        ({"readouts": ("l2@resid_post:2",)}, "sweep.readouts.0 is"),
        ({"directions": ("real-difference",)}, "sweep.directions.0 is"),
        ({"path": tm.Straight(lengths=(0, 2))}, "sweep.path.lengths.1 is 1.0 there, 2.0 here"),
        ({"path": tm.Sphere(degrees=(0, 2))}, "sweep.path"),
        ({"sequences": 5}, "sweep.sequences is 12 there, 5 here"),
        ({"positions": "last"}, "sweep.positions is"),
        ({"massive": tm.MassivePolicy(ratio=5)}, "sweep.massive.ratio is"),
    ],
)
def test_another_sweep_is_refused(loaded, changes, sentence, tmp_path):
    out = stored(tm.Sweep(**GIVEN), loaded, tmp_path / "run")
    with pytest.raises(TiltmeterError, match=f"another configuration .*{sentence}"):
        refuse_other_run(out, tm.Sweep(**GIVEN | changes))
    stored(tm.Sweep(**GIVEN), loaded, tmp_path / "empty", results=False)
    refuse_other_run(tmp_path / "empty", tm.Sweep(**GIVEN | changes))  # nothing would be lost
    refuse_other_run(tmp_path / "none", tm.Sweep(**GIVEN | changes))


def test_another_version_of_the_code_is_refused(loaded, tmp_path, monkeypatch):
    out = stored(tm.Sweep(**GIVEN), loaded, tmp_path / "run")
    monkeypatch.setattr("tiltmeter.runs.run_directory.code_sha256", lambda: "other")
    with pytest.raises(TiltmeterError, match="code is"):
        refuse_other_run(out, tm.Sweep(**GIVEN))


def test_from_python_it_is_refused_before_the_model_is_loaded(loaded, tmp_path):
    stored(tm.Sweep(**GIVEN), loaded, tmp_path / "run")
    other = tm.Sweep(**GIVEN | {"seed": 1})
    nothing = ("no-such-model", "no-such-tokens", tmp_path / "run")
    with pytest.raises(TiltmeterError, match="another configuration"):
        tm.run_sweep(other, *nothing)
    with pytest.raises(TiltmeterError, match="another configuration"):
        tm.run_crossings(tm.Crossings(sweep=other, goal=tm.CrossingTarget(threshold=1.0)), *nothing)
    with pytest.raises(TiltmeterError, match="another configuration"):
        tm.compare("no-such-model", "none", "resid_pre:1", {"v": torch.ones(WIDTH)}, out=tmp_path / "run")
