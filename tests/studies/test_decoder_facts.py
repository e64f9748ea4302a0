"""Nearest neighbours of decoder rows, against loops."""

import numpy as np
import pytest
import torch
import xarray as xr

from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.loading import load_sae
from tiltmeter.studies import decoder_facts
from tiltmeter.studies.decoder_facts import DecoderFacts, nearest_cosines
from tiltmeter.studies.token_facts import FILE
from tiny_models import full_pass, tiny

TOKENS = token_set(20, 8)


def test_nearest_cosines(monkeypatch):
    monkeypatch.setattr(decoder_facts, "ROWS_AT_ONCE", 3)
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = torch.tensor([4, 0, 19, 7])
    naive = [
        max(
            float(rows[one] @ rows[other] / rows[one].norm() / rows[other].norm())
            for other in range(20)
            if other != one
        )
        for one in drawn.tolist()
    ]
    assert nearest_cosines(rows, drawn).tolist() == pytest.approx(naive)


def test_orthogonal_rows_are_isotropic_and_copies_are_not():
    apart = torch.eye(5, dtype=torch.float64)
    assert nearest_cosines(apart, torch.arange(5)).abs().max() == 0
    assert nearest_cosines(apart[[0, 0, 1]], torch.arange(3)).tolist() == [1, 1, 0]


def test_they_are_of_the_latents_that_are_alive(tmp_path):
    loaded = LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"})
    name = str(save_sae(tmp_path / "one-l0-5", bias=-1.5))
    found = DecoderFacts("resid_pre:1", (name,), 18, 0).run(loaded, TOKENS, tmp_path / "run", "test")
    np.testing.assert_array_equal(xr.load_dataset(tmp_path / "run" / FILE, engine="scipy").nearest, found.nearest)
    x = full_pass("gpt2", loaded.model.hf, TOKENS.ids[:18], [(1, "resid_pre")]).seen[1, "resid_pre"]
    sae = load_sae(name).to(torch.device("cpu"), torch.float64)
    alive = (sae.encode((x - x.mean(-1, keepdim=True)).flatten(0, 1)) > 0).any(0)
    rows = sae.decoder[alive]
    rows = rows - rows.mean(-1, keepdim=True)
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).fill_diagonal_(-1)
    assert 1 < alive.sum() < len(alive)
    kept = found.nearest.sel(sae="one-l0-5").dropna("sequence").values
    np.testing.assert_allclose(np.sort(kept), np.sort(cosines.max(-1).values), rtol=1e-6)
