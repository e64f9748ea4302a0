"""Names of directions: parsed and written back, their random addresses, and independent numbered draws."""

import re

import numpy as np
import pytest

from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.names import BaseName, DirectionName, draws
from tiltmeter.perturb.paths import Straight, Substitute
from tiltmeter.perturb.registry import DIRECTIONS, check_direction_name, needs_sae, rng_key
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiltmeter.sweeps.run import run_sweep
from tiny_models import tiny


@pytest.mark.parametrize(
    ("text", "kind", "argument", "draw", "key"),
    [
        ("isotropic", "isotropic", None, 0, "isotropic"),
        ("isotropic@7", "isotropic", None, 7, "isotropic"),
        ("epsilon-random@12:a-l0-4", "epsilon-random", "a-l0-4", 12, "epsilon-random:a-l0-4"),
        ("epsilon-random@3", "epsilon-random", None, 3, "epsilon-random"),
        ("sae-error:a:b", "sae-error", "a:b", 0, "sae-error:a:b"),
        ("sae-error:", "sae-error", "", 0, "sae-error:"),
        ("sae-error:folder@3", "sae-error", "folder@3", 0, "sae-error:folder@3"),
        ("minus-sae-feature@2:a", "minus-sae-feature", "a", 2, "sae-feature:a"),
        ("latent-ablation:a", "latent-ablation", "a", 0, "latent-doubling:a"),
        ("epsilon-real-mixture@2:a", "epsilon-real-mixture", "a", 2, "real-mixture"),
        ("epsilon-random:a", "epsilon-random", "a", 0, "epsilon-random:a"),
        ("along:vectors@2.npy#1", "along", "vectors@2.npy#1", 0, "along:vectors@2.npy#1"),
        ("blend:.5*real+-2*isotropic", "blend", ".5*real+-2*isotropic", 0, "blend:real+isotropic"),
        ("isotropic@0", "isotropic@0", None, 0, "isotropic@0"),
        ("isotropic@01", "isotropic@01", None, 0, "isotropic@01"),
        ("along@2:v.npy", "along@2", "v.npy", 0, "along@2:v.npy"),
    ],
)
def test_names_are_parsed_and_written_back(text, kind, argument, draw, key):
    """The keys are written out: another key would be other random numbers for the same seed."""
    name = DirectionName.parse(text)
    assert name == DirectionName(kind, argument, draw)
    assert str(name) == text
    assert rng_key(name) == key


@pytest.mark.parametrize("text", ["real", "sae-reconstruction:a:b", "sae-reconstruction:", "real@2"])
def test_names_of_bases_are_written_back(text):
    assert str(BaseName.parse(text)) == text


def test_kinds_in_which_nothing_is_random_have_no_second_draw():
    for kind, entry in DIRECTIONS.items():
        name = DirectionName(kind, "a" if needs_sae(kind) else None, draw=2)
        if entry.is_random:
            check_direction_name(name, ("a",))
            continue
        with pytest.raises(TiltmeterError, match=f"Nothing is drawn in {kind}, so '{name}' would be the same"):
            check_direction_name(name, ("a",))


@pytest.mark.parametrize(
    "text", ["isotropic@0", "isotropic:", "isotropic:a", "along@2:v.npy", "blend@2:1*real", "blend", "along", ""]
)
def test_what_is_not_a_direction_is_refused(text):
    with pytest.raises(TiltmeterError, match=re.escape(f"{text!r} is not a direction")):
        check_direction_name(DirectionName.parse(text), ("a",))


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
    assert [*map(str, plan.directions)] == ["epsilon-random@1:one-l0-5", "sae-feature@2:one-l0-5"]
    assert list(plan.saes) == ["one-l0-5"]
    assert plan.counted_saes == ("one-l0-5",)
