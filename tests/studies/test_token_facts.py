"""Facts of tokens, against a plain forward pass of the model, and after an interruption."""

import numpy as np
import pytest
import torch
import xarray as xr

from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.loading import load_sae
from tiltmeter.studies import token_facts
from tiltmeter.studies.token_facts import TokenFacts, strings_of
from tiny_models import full_pass, tiny

TOKENS = token_set(20, 8)


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"})


@pytest.fixture(scope="module")
def sae(tmp_path_factory):
    return str(save_sae(tmp_path_factory.mktemp("saes") / "one-l0-5", bias=-1.0))


@pytest.fixture(scope="module")
def facts(loaded, sae, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    found = TokenFacts("resid_pre:1", (sae,), 18).run(loaded, TOKENS, out, "test")
    saved = xr.load_dataset(out / token_facts.FILE, engine="scipy")
    for name in found.variables:
        np.testing.assert_array_equal(saved[name], found[name])
    assert saved.attrs == found.attrs
    return saved


def test_they_are_those_of_a_plain_forward_pass(loaded, sae, facts):
    ids = TOKENS.ids[:18]
    found = full_pass("gpt2", loaded.model.hf, ids, [(1, "resid_pre")])
    x = found.seen[1, "resid_pre"]
    x = x - x.mean(-1, keepdim=True)
    log_p = found.logits.log_softmax(-1)
    loss = [[-float(log_p[row, at, ids[row, at + 1]]) for at in range(7)] for row in range(18)]
    np.testing.assert_allclose(facts.loss[:, :-1], loss, rtol=1e-9)
    assert np.isnan(facts.loss[:, -1]).all()
    np.testing.assert_allclose(facts.norm, x.norm(dim=-1), rtol=1e-9)
    fired = (load_sae(sae).to(torch.device("cpu"), torch.float64).encode(x.flatten(0, 1)) > 0).sum(-1)
    assert fired.float().std() > 0
    np.testing.assert_array_equal(facts.l0, fired.reshape(18, 8))
    assert (facts.attrs["site"], facts.attrs["sae"]) == ("blocks.1.hook_resid_pre", "one-l0-5")


def test_frequencies_are_of_the_whole_token_set(facts):
    ids = TOKENS.ids.numpy()
    np.testing.assert_array_equal(facts.token, ids[:18])
    assert float(facts.frequency[0, 0]) == pytest.approx(20 / 160)
    assert float(facts.frequency[3, 5]) == pytest.approx((ids == ids[3, 5]).mean())


def test_tokens_have_texts(facts):
    assert strings_of(facts)[int(facts.token[2, 2])] == f"token {int(facts.token[2, 2])}"
    assert set(strings_of(facts)) == set(TOKENS.ids[:18].unique().tolist())


def test_a_finished_shard_is_not_computed_again(loaded, sae, tmp_path, monkeypatch):
    asked = TokenFacts("resid_pre:1", (sae,), 20)
    measure, calls = token_facts._measure, []

    def failing(model, ids, at):
        calls.append(len(ids))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(model, ids, at)

    monkeypatch.setattr(token_facts, "_measure", failing)
    with pytest.raises(KeyboardInterrupt):
        asked.run(loaded, TOKENS, tmp_path, "test")
    found = asked.run(loaded, TOKENS, tmp_path, "test")
    assert calls == [16, 4, 4]
    assert found.loss.shape == (20, 8)


def test_another_sae_is_another_run(loaded, sae, tmp_path):
    TokenFacts("resid_pre:1", (sae,), 4).run(loaded, TOKENS, tmp_path / "run", "test")
    other = str(save_sae(tmp_path / "other-l0-5", seed=3))
    with pytest.raises(TiltmeterError, match="is a run of another configuration"):
        TokenFacts("resid_pre:1", (other,), 4).run(loaded, TOKENS, tmp_path / "run", "test")
