"""A direction that is added to the registry can be swept; neither it nor a readout changes a paper's experiments."""

import runpy
import sys
from importlib import import_module
from typing import get_args

import numpy as np
import pytest
import torch

from forked import Forked, forget_imports
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb import registry
from tiltmeter.perturb.directions import Along
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.paths import Straight
from tiltmeter.perturb.registry import SiteDirection
from tiltmeter.studies import STUDIES
from tiltmeter.studies.study import KnownSAE, Size, Subject
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep
from tiny_models import WIDTH, tiny

VECTOR = torch.linspace(-1, 1, WIDTH).double() ** 2
NEW = SiteDirection(lambda _: Along(VECTOR), "a parabola")
PATH = Straight(lengths=(3.0,))


def planned_with_a_new_direction():
    """What `planned` gives where a direction and a readout are registered before any study is imported."""
    forget_imports("tiltmeter", "tiny_models", "sweep_cases")
    readouts, registry = map(import_module, ("tiltmeter.models.readouts", "tiltmeter.perturb.registry"))
    directions = import_module("tiltmeter.perturb.directions")
    assert not [name for name in sys.modules if name.startswith(("tiltmeter.studies", "tiltmeter.sweeps"))]
    readouts.OUTPUT_READOUTS["depth"] = readouts.ReadoutDefinition(lambda change: change.kl, "a new one")
    registry.DIRECTIONS["parabola"] = registry.SiteDirection(lambda s: directions.Plain(s.isotropic), "a parabola")
    print(runpy.run_path(__file__)["planned"]())


def loaded():
    return LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"})


def planned():
    """Every experiment of every study and size, and the sweep that names no directions, as text."""
    sites = [Site(layer, kind) for layer in range(3) for kind in ("resid_pre", "z")]
    kinds = ("local", "e2e", "e2e+ds")
    saes = [KnownSAE(f"{kind}-{site.kind}-{site.layer}", site, kind, 5.0) for site in sites for kind in kinds]
    subject = Subject(loaded(), 1, tuple(saes))
    plans = {
        (study.name, size): study.experiments(subject, size) for study in STUDIES.values() for size in get_args(Size)
    }
    return repr((plans, Sweep(site="resid_pre:1", path=PATH)))


def test_no_study_and_no_default_follows_the_registry():
    with Forked(planned_with_a_new_direction) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    here = planned()
    assert out.strip() == here
    assert all(
        kind in here for kind in ("isotropic-difference", "sae-error", "real-mixture", "cos@blocks")
    )  # directions and readouts are compared


def test_a_new_direction_can_be_swept(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.DIRECTIONS, "parabola", NEW)
    np.save(tmp_path / "v.npy", VECTOR.numpy())
    names = ("parabola", f"along:{tmp_path}/v.npy", "isotropic")
    sweep = Sweep(site="resid_pre:1", directions=names, path=PATH, sequences=4)
    curves = run_sweep(sweep, loaded(), token_set(), tmp_path / "run")
    new, same, other = (curves.kl.isel(direction=i).to_numpy() for i in range(3))
    assert [*curves.direction.values] == ["parabola", "along:v.npy", "isotropic"]
    np.testing.assert_array_equal(new, same)
    assert (new != other).all()


def test_it_is_unknown_where_it_is_not_registered():
    with pytest.raises(TiltmeterError, match="'parabola' is not a direction"):
        registry.check_direction_name(DirectionName("parabola"))
