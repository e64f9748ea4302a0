"""What a sweep may be, and looking up its names."""

import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Sphere, Straight
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiny_models import WIDTH, tiny

PATH = Straight(lengths=(0, 1))
SMALL = {"site": "resid_pre:1", "path": PATH, "sequences": 4}


@pytest.fixture(scope="module")
def model():
    return SplitModel(tiny("gpt2"))


def plan(model, **changes):
    return make_plan(Sweep(**SMALL | changes), model, token_set(sequences=4))


def test_what_is_not_said_is_what_the_definitions_say():
    sweep = Sweep(site="resid_pre:1", path=PATH)
    kinds = ("cov-random-difference", "cov-random-mixture", "real-difference", "real-mixture")
    assert sweep.directions == ("isotropic", "isotropic-difference", *kinds)
    assert sweep.readouts == ("kl",)
    assert sweep.positions == "all"
    assert sweep.bos == BosPolicy(statistics="out", perturbation="in", average="in")
    assert (sweep.statistics_sequences, sweep.pool, sweep.seed) == (2048, 32768, 0)
    assert not sweep.keep_positions


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            {"lenghts": (0, 1)},
            r"path was {'lenghts': \(0, 1\)}: a path has no lenghts \(did you mean lengths\?\); give tm.Straight",
        ),
        ({"kind": "straight", "lenghts": (0, 1)}, r"There is no lenghts in path.straight \(did you mean lengths\?\)"),
        ({"lengths": (0, 1)}, r"its kind is missing; give tm.Straight\(lengths="),
        ({}, "its kind is missing"),
        ({"kind": "straigt", "lengths": (0, 1)}, r"'straigt' is not a kind of path \(did you mean straight\?\)"),
        ({"kind": "sphere", "lengths": (0, 1)}, "There is no lengths in path.sphere"),
        ((0, 1), "give a path: tm.Straight"),
    ],
)
def test_what_is_no_path_is_refused_in_a_sentence(path, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        Sweep(site="resid_pre:1", path=path)


@pytest.mark.parametrize("path", [PATH, Straight(lengths=(2.5,), unit="norm"), Sphere(degrees=(0, 90))])
def test_a_sweep_comes_back_from_json(path):
    sweep = Sweep(site="z:0", directions=("isotropic",), path=path, bos=BosPolicy(average="out"), keep_positions=True)
    assert Sweep.model_validate_json(sweep.model_dump_json()) == sweep


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequences": 0},
        {"shard": 0},
        {"pool": 0},
        {"batch_tokens": -1},
        {"statistics_sequences": 0},
        {"directions": ()},
        {"readouts": ()},
        {"path": {"kind": "straight", "lengths": []}},
        {"path": {"kind": "straight", "lengths": [1, -1]}},
        {"path": {"kind": "straight", "lengths": [float("nan")]}},
        {"path": {"kind": "straight", "lengths": [1, 2, 1]}},
        {"path": {"kind": "straight", "lengths": [1], "unit": "miles"}},
        {"path": {"kind": "sphere", "degrees": [181]}},
        {"path": {"kind": "sphere", "degrees": [10, 10.0]}},
        {"path": {"kind": "spiral", "degrees": [10]}},
        {"bos": {"average": "maybe"}},
        {"path": [0, 1, 2]},
    ],
)
def test_what_is_no_sweep(wrong):
    place = next(iter(wrong))
    with pytest.raises(TiltmeterError) as refused:
        Sweep(**SMALL | wrong)
    assert re.search(rf"^{place}\b.* was .+: .+\.$", str(refused.value)), refused.value


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"postions": "last"}, r"There is no postions \(did you mean positions\?\); leave it out\."),
        ({"bos": {"averages": "in"}}, r"There is no averages in bos; leave it out\."),
        (
            {"path": {"kind": "straight", "lenghts": [1]}},
            r"There is no lenghts in path.straight \(did you mean lengths\?\)",
        ),
        ({"lengths": (1, 2)}, "There is no lengths; leave it out"),
    ],
)
def test_fields_that_there_are_not(wrong, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        Sweep(**SMALL | wrong)


def test_a_sweep_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Sweep(**SMALL).seed = 1


def test_names_are_looked_up(model):
    found = plan(
        model, directions=("real-mixture", "isotropic"), readouts=("l2@resid_post:2", "kl", "kl"), positions="2+3"
    )
    assert found.site == Site(1, "resid_pre")
    assert [readout.name for readout in found.readouts] == ["l2@blocks.2.hook_resid_post", "kl"]
    assert (found.positions.perturbed, found.positions.read) == ((2,), (2, 3, 4, 5))
    assert [*map(str, found.directions)] == ["real-mixture", "isotropic"]
    assert found.own == {}


def test_every_row_of_a_vectors_file_is_a_direction_in_its_place(model, tmp_path):
    rows = np.arange(2 * WIDTH).reshape(2, WIDTH)
    np.save(tmp_path / "steer.npy", rows)
    found = plan(model, directions=("isotropic", f"along:{tmp_path}/steer.npy", "real-mixture"))
    assert [*map(str, found.directions)] == ["isotropic", "along:steer.npy#0", "along:steer.npy#1", "real-mixture"]
    assert torch.equal(found.own[found.directions[2]].direction.given, torch.from_numpy(rows[1]).double())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"site": "resid_pre:3"}, "layers 0 to 2"),
        ({"site": "hook_pos_embed"}, "is not a site"),
        ({"directions": ("sideways",)}, "is not a direction; tiltmeter list directions"),
        ({"directions": ("isotropic", "real-mixture", "isotropic")}, "isotropic is listed twice"),
        ({"directions": ("along:nowhere.npy",)}, "nowhere.npy is not a file"),
        ({"readouts": ("kl", "perplexity")}, "is not a readout; choose from kl"),
        ({"readouts": ("l2@resid_post:9",)}, "layers 0 to 2"),
        ({"positions": "8"}, "the sequences have 8 tokens"),
        ({"positions": "first"}, "were not understood"),
        ({"sequences": 5}, "5 sequences were requested, but tokens gave 4"),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(model, wrong, message):
    with pytest.raises(TiltmeterError, match=message) as refused:
        plan(model, **wrong)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


def test_vectors_of_one_name_are_refused(model, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "v.npy", np.ones(WIDTH))
    with pytest.raises(TiltmeterError, match=r"along:v\.npy is listed twice"):
        plan(model, directions=(f"along:{tmp_path}/a/v.npy", f"along:{tmp_path}/b/v.npy"))
