"""Lengths of papers: as published in their own setting, elsewhere the same fractions of the pair distance."""

import numpy as np
import pytest

from giglemiani_worlds import FLAT, NEARER, PUBLISHED, results
from lee_worlds import FACTORS, LENGTHS, WORLD, dataset, square
from sweep_cases import token_set
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Straight
from tiltmeter.studies import STUDIES, giglemiani2024, lee2024, reproduce
from tiltmeter.studies.columns import ControlColumn
from tiltmeter.studies.giglemiani2024.curve_statistics import samples
from tiltmeter.studies.lee2024.estimands import at, grid, here
from tiltmeter.studies.lengths import are_published, l2_of_one, straight
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.run import StudyRun, _control
from tiltmeter.studies.study import Subject, SweepExperiment
from tiny_models import tiny

DIRECTIONS = {name.replace("_", "-"): square(factor) for name, factor in FACTORS.items()}
OWN_SETTING = dataset(DIRECTIONS, LENGTHS, "L2", path_unit="absolute")
"""Curves at the paper's lengths in a model whose pair distance (33) is not the paper's."""


def subject(lengths):
    return Subject(LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"}), 2, (), lengths=lengths)


def path_of(study, name, lengths):
    experiment = study.STUDY.experiments(subject(lengths), "quick")[name]
    assert isinstance(experiment, SweepExperiment)
    return experiment.sweep.path


def test_lengths_are_those_of_the_paper_or_the_same_parts_of_the_pair_distance():
    assert straight((0, 40.0), 80.0, "published") == Straight(lengths=(0, 40.0), unit="absolute")
    assert straight((0, 40.0), 80.0, "scaled") == Straight(lengths=(0, 0.5), unit="pair-distance")


def test_the_papers_own_settings_have_its_lengths_and_no_others():
    for name in ("directions", "directions-early", "directions-larger", "shapes"):
        published, scaled = (path_of(lee2024, name, how) for how in ("published", "scaled"))
        assert published.unit == "absolute" and set(published.lengths) <= {0.0, 1.0, *range(4, 102)}
        np.testing.assert_allclose(np.array(scaled.lengths) * 81.59, published.lengths)
    assert path_of(lee2024, "directions", "published").lengths == (0, 1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 101)
    steps = path_of(giglemiani2024, "plateaus-real", "published")
    assert steps.unit == "absolute" and steps.lengths == tuple(step / 2 for step in range(101))
    assert path_of(giglemiani2024, "absolute", "scaled").unit == "pair-distance"


def test_the_gpt2_presets_have_them_at_their_own_layer_alone():
    for name in ("lee2024", "giglemiani2024"):
        presets = STUDIES[name].presets
        assert [presets[one].lengths for one in ("nano", "gpt2")] == ["scaled", "published"]
        gpt2 = presets["gpt2"]
        assert reproduce._lengths(gpt2.layer, gpt2) == "published"
        assert reproduce._lengths(gpt2.layer + 1, gpt2) == reproduce._lengths(gpt2.layer, None) == "scaled"


def test_controls_have_scaled_lengths(tmp_path):
    """Activations of initialised weights are a hundred times smaller: 101 would be 165 pair distances there."""
    given = subject("published")
    request = StudyRun(lee2024.STUDY, "quick", given, token_set(), token_set)
    assert _control(request, ControlColumn("initialised", 0), tmp_path).lengths == "scaled"


def test_claims_and_grids_take_the_unit_from_the_curves():
    scaled, literal = WORLD["directions"], OWN_SETTING
    assert not are_published(scaled) and are_published(literal)
    assert grid(scaled) == grid(literal) == LENGTHS[1:]
    for length in (1.0, 21.0, 101.0):
        assert here(literal, length) == length and here(scaled, length) == pytest.approx(length / 81.59 * 33)
        naive = literal.kl.sel(direction="isotropic", step=length).values
        np.testing.assert_array_equal(at(literal, "isotropic", length), naive)
    worlds = Results({"directions": literal}, {})
    assert "At length 21" in lee2024.STUDY.figures["1"].finding(worlds)


@pytest.mark.parametrize(("unit", "said"), [(None, "do not say"), ("norm", "in the unit norm")])
def test_a_unit_that_is_not_known_is_refused(unit, said):
    curves = OWN_SETTING.copy()
    curves.attrs = {key: value for key, value in curves.attrs.items() if key != "path_unit"}
    curves.attrs |= {} if unit is None else {"path_unit": unit}
    with pytest.raises(NotMeasured, match=said):
        l2_of_one(curves, 81.59)


def test_where_lengths_are_published_so_are_the_thresholds():
    """The end of the plateau: the first step whose L2 reaches 20, whatever the curves end with."""
    world = results(PUBLISHED, NEARER, FLAT)
    for curves in world.found.values():
        curves.attrs["path_unit"] = "absolute"
    l2 = world["plateaus-real"]["l2@blocks.5.hook_resid_post"].values[0]
    naive = [np.flatnonzero(curve >= 20.0)[0] for curve in l2.T]
    np.testing.assert_array_equal(samples(world, "ap")["real"].value, naive)
    relative = samples(results(PUBLISHED, NEARER, FLAT), "ap")["real"]
    assert not np.array_equal(relative.value, naive)
