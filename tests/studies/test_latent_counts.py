"""How many latents random and real activations turn on, against a loop."""

import numpy as np
import pytest
import torch
import xarray as xr

from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.loading import load_sae
from tiltmeter.studies import latent_counts
from tiltmeter.studies.heimersheim2024 import STUDY
from tiltmeter.studies.latent_counts import INPUTS, LatentCounts
from tiltmeter.studies.results import Results
from tiltmeter.studies.token_facts import FILE
from tiny_models import full_pass, tiny

TOKENS = token_set(40, 8)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    loaded = LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"})
    name = str(save_sae(folder / "one", bias=-1.5))
    return folder, name, LatentCounts("resid_pre:1", (name,), 30, 40, 0).run(loaded, TOKENS, folder / "run", "test")


def real():
    x = full_pass("gpt2", tiny("gpt2"), TOKENS.ids, [(1, "resid_pre")]).seen[1, "resid_pre"][:, -1]
    return x - x.mean(-1, keepdim=True)


def naive(name, x):
    sae = load_sae(name).to(torch.device("cpu"), x.dtype)
    return [(sae.encode(one[None]) > 0).sum().item() for one in x]


def test_real_activations_have_their_own_latents(measured):
    folder, name, found = measured
    assert found.active.sel(input="real").values.tolist() == naive(name, real()[:30])
    stored = xr.load_dataset(folder / "run" / FILE, engine="scipy")
    np.testing.assert_array_equal(stored.active.values, found.active.values)


def test_random_ones_are_samples_with_their_mean_and_covariance(measured, monkeypatch):
    """Without noise, a sample is the mean, and a difference the mean less the activation."""
    folder, name, found = measured
    assert found.active.sel(input="cov-random").values.std() > 0
    monkeypatch.setattr(
        "tiltmeter.perturb.sources.normal", lambda address, stream, count: torch.zeros(30, 1, count).double()
    )
    loaded = LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"})
    mean = real().double().mean(0).float()
    still = LatentCounts("resid_pre:1", (name,), 30, 40, 0).run(loaded, TOKENS, folder / "still", "test")
    assert still.active.sel(input="cov-random").values.tolist() == naive(name, mean.expand(30, -1))
    assert still.active.sel(input="cov-random-difference").values.tolist() == naive(name, mean - real()[:30])


def test_the_figure_says_what_was_counted(measured):
    _, _, found = measured
    figure = STUDY.figures["latents"]
    said = figure.finding(Results({"latents": found}, {}))
    active = found.active.sel(input="real").values
    assert f"real {active.min()} to {active.max()}, median {np.median(active):g}" in said
    left, _ = figure.chart(Results({"latents": found}, {})).rows[0]
    drawn = {mark.name: mark.counts.sum() for mark in left.marks}
    assert drawn == {name: (found.active.sel(input=name).values > 0).sum() for name in INPUTS}
    assert tuple(found.input.values) == latent_counts.INPUTS
