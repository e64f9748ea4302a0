"""Numbered draws of a random direction: independent, the same again by number, and refused where nothing is drawn."""

import numpy as np
import pytest

from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.names import FIXED, draws, split_draw
from tiltmeter.perturb.paths import Straight, Substitute
from tiltmeter.perturb.registry import ABLATIONS, DIRECTIONS, check_direction_name, draws_as
from tiltmeter.perturb.sae_directions import SAE_DIRECTIONS
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiltmeter.sweeps.run import run_sweep
from tiny_models import tiny


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("isotropic", ("isotropic", 0)),
        ("isotropic@7", ("isotropic", 7)),
        ("epsilon-random@12:a-l0-4", ("epsilon-random:a-l0-4", 12)),
        ("epsilon-random@3", ("epsilon-random", 3)),
        ("sae-error:folder@3", ("sae-error:folder@3", 0)),
        ("along:vectors@2.npy#1", ("along:vectors@2.npy#1", 0)),
        ("blend:1*real", ("blend:1*real", 0)),
        ("isotropic@0", ("isotropic@0", 0)),
        ("isotropic@01", ("isotropic@01", 0)),
    ],
)
def test_the_number_stands_after_the_kind(name, parts):
    assert split_draw(name) == parts
    assert draws_as(parts[0]) == draws_as(name) or "@0" in name


def test_what_is_fixed_has_no_second_draw():
    for kind in FIXED:
        assert kind in SAE_DIRECTIONS or kind in ABLATIONS
        with pytest.raises(TiltmeterError, match=f"Nothing is drawn in {kind}, so '{kind}@2:a' would be the same"):
            check_direction_name(f"{kind}@2:a", ("a",))
    for kind in DIRECTIONS:
        check_direction_name(f"{kind}@2")
    with pytest.raises(TiltmeterError, match="'isotropic@0' is not a direction"):
        check_direction_name("isotropic@0")


def test_names_of_many_draws():
    assert draws("isotropic", 3) == ("isotropic", "isotropic@1", "isotropic@2")


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"})


def test_draws_are_independent_and_stay_what_they_are(tmp_path, loaded):
    several = _kl(tmp_path / "several", loaded, draws("isotropic", 4))
    alone = _kl(tmp_path / "alone", loaded, ("isotropic@3", "isotropic"))
    assert np.array_equal(several["isotropic@3"], alone["isotropic@3"])
    assert np.array_equal(several["isotropic"], alone["isotropic"])
    values = np.stack([several[name].ravel() for name in draws("isotropic", 4)])
    assert len(np.unique(values)) == values.size


def _kl(folder, loaded, directions):
    sweep = Sweep(
        site="resid_pre:1", directions=directions, path=Straight(lengths=(3.0,)), sequences=6, keep_positions=True
    )
    curves = run_sweep(sweep, loaded, token_set(), folder)
    return {name: curves.kl.sel(direction=name).to_numpy() for name in directions}


def test_an_sae_that_only_numbered_directions_are_of_is_loaded(tmp_path, loaded):
    sae = save_sae(tmp_path / "one-l0-5")
    sweep = Sweep(
        site="resid_pre:1",
        directions=("epsilon-random@1", "sae-feature@2"),
        saes=(str(sae),),
        path=Substitute(),
        sequences=4,
    )
    plan = make_plan(sweep, loaded.model, token_set())
    assert plan.directions == ("epsilon-random@1:one-l0-5", "sae-feature@2:one-l0-5")
    assert list(plan.saes) == ["one-l0-5"]
    assert plan.counted_saes == ("one-l0-5",)
