"""Sweeps for a look: models and tokens as they are in a notebook, and nothing left on the disk."""

import tempfile

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.sweeps import run
from tiny_models import random_tokens, tiny

SWEEP = tm.Sweep(
    site="resid_pre:1",
    directions={"mine": torch.linspace(-1, 1, 32)},
    path=tm.Straight(lengths=(0.5, 5)),
    sequences=3,
    shard=2,
    statistics_sequences=4,
)


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="tiny")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary directories are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_sweep_without_a_run_directory_is_the_same_and_leaves_nothing(loaded, temporary, tmp_path):
    stored = tm.run_sweep(SWEEP, loaded, token_set(), tmp_path / "run")
    looked = tm.run_sweep(SWEEP, loaded, token_set())
    xr.testing.assert_identical(looked, stored)
    assert not looked.kl.isnull().any() and not tm.summary(looked).isnull().all(axis=None)
    assert list(temporary.iterdir()) == []


def test_an_interrupted_sweep_leaves_nothing(loaded, temporary, monkeypatch):
    seen = []

    def interrupted(*args):
        seen.extend(temporary.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tm.run_sweep(SWEEP, loaded, token_set())
    assert len(seen) == 1 and list(temporary.iterdir()) == []


def test_crossings_without_a_run_directory(loaded, temporary, tmp_path):
    wanted = tm.Crossings(sweep=SWEEP, goal=tm.CrossingTarget(fraction=0.5))
    stored = tm.run_crossings(wanted, loaded, token_set(), tmp_path / "run")
    pd.testing.assert_frame_equal(tm.run_crossings(wanted, loaded, token_set()), stored)
    assert list(temporary.iterdir()) == []


def test_functions_without_a_version_are_only_looked_at(loaded, tmp_path):
    sweep = tm.Sweep(**dict(SWEEP) | {"directions": {"mine": lambda x, context: x.flip(-1)}})
    assert tm.run_sweep(sweep, loaded, token_set()).sizes["direction"] == 1
    with pytest.raises(TiltmeterError, match=r"The direction mine is a function, .*out=None"):
        tm.run_sweep(sweep, loaded, token_set(), tmp_path / "run")


def test_tokens_as_they_are_give_what_a_token_set_gives(loaded):
    ids = token_set().ids
    expected = tm.run_sweep(SWEEP, loaded, tm.TokenSet(ids, "mine", None, {}))
    for given in (ids, {"input_ids": ids.tolist()}):
        assert np.array_equal(tm.run_sweep(SWEEP, tiny("gpt2"), given).kl, expected.kl)


def test_only_as_many_tokens_are_loaded_as_are_used(loaded):
    tokens = [*token_set().ids[:4].tolist(), ["not an id"]]
    assert tm.run_sweep(SWEEP, loaded, tokens).sizes["sequence"] == 3
    with pytest.raises(TiltmeterError, match="3 sequences were requested, but tokens in memory gave 2"):
        tm.run_sweep(SWEEP, loaded, tokens[:2])


def test_a_masked_batch_gives_what_each_document_gives_alone():
    rows, model = random_tokens(3, 7, seed=4), SplitModel(tiny("llama"))
    loaded = tm.LoadedModel(model, None, {})
    batch, mask = torch.full((3, 12), 9), torch.zeros(3, 12)
    for row, begin in enumerate((0, 3, 5)):  # padding on the right, on both sides, on the left
        batch[row, begin : begin + 7], mask[row, begin : begin + 7] = rows[row], 1
    found = tm.run_sweep(SWEEP, loaded, {"input_ids": batch, "attention_mask": mask}).kl[0]
    alone = SWEEP.model_copy(update={"sequences": 1})
    each = [tm.run_sweep(alone, loaded, rows[[row, row - 1]]).kl[0, :, 0] for row in range(3)]
    np.testing.assert_allclose(found.T, each, rtol=1e-9)
    unmasked = tm.run_sweep(SWEEP, loaded, batch).kl[0]
    assert abs(unmasked / found - 1).max() > 0.01


def test_one_prompt_is_enough_where_no_other_activation_is_needed(loaded):
    """The first thing that is tried in a notebook."""
    prompt = random_tokens(1, 9, seed=3)
    sweep = tm.Sweep(
        site="resid_pre:1", directions={"mine": torch.linspace(-1, 1, 32)}, path=tm.Straight(lengths=(1, 5))
    )
    found = tm.run_sweep(sweep, loaded, prompt)
    assert found.sizes["sequence"] == 1 and bool((found.kl > 0).all())
    among = tm.run_sweep(sweep, loaded, torch.cat([prompt, random_tokens(3, 9, seed=4)]))
    np.testing.assert_allclose(found.kl.sel(sequence=0), among.kl.sel(sequence=0), rtol=1e-5)
    with pytest.raises(TiltmeterError, match="the pool holds only 0"):
        tm.run_sweep(sweep.model_copy(update={"directions": ("real-mixture",)}), loaded, prompt)
    with pytest.raises(TiltmeterError, match="there is one sequence; use another unit"):
        tm.run_sweep(sweep.model_copy(update={"path": tm.Straight(lengths=(1,), unit="pair-distance")}), loaded, prompt)


def test_all_sequences_are_measured_where_no_number_is_given(loaded):
    given = {"site": "resid_pre:1", "directions": ("isotropic",), "path": tm.Straight(lengths=(1, 5))}
    assert tm.run_sweep(tm.Sweep(**given), loaded, token_set(sequences=7)).sizes["sequence"] == 7
    crossings = tm.Crossings(sweep=tm.Sweep(**given), goal=tm.CrossingTarget(fraction=0.5))
    assert len(tm.run_crossings(crossings, loaded, token_set(sequences=7))) == 7
    with pytest.raises(TiltmeterError, match="8 sequences were requested"):
        tm.run_sweep(tm.Sweep(**given, sequences=8), loaded, token_set(sequences=7))
