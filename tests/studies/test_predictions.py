"""Next-token predictions: ranks and KL against plain arithmetic, and the random point that of a sweep."""

import json

import numpy as np
import pytest
import tokenizers
import torch
import transformers
import xarray as xr

from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Substitute
from tiltmeter.studies import predictions
from tiltmeter.studies.predictions import Predictions
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep
from tiny_models import full_pass, tiny

TOKENS, AT = token_set(12, 8), 5


def numbers():
    """A tokenizer whose words are the ids."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(one): one for one in range(61)}, "0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words)


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel(SplitModel(tiny("gpt2")), None, {"sha256": "0"})


@pytest.fixture(scope="module")
def sae(tmp_path_factory):
    return str(save_sae(tmp_path_factory.mktemp("saes") / "one-l0-5", bias=-1.0))


@pytest.fixture(scope="module")
def found(loaded, sae, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    found = Predictions("resid_pre:1", (sae,), (1, 7), AT, seed=3).run(loaded, TOKENS, out, "test")
    saved = xr.load_dataset(out / predictions.FILE, engine="scipy")
    np.testing.assert_array_equal(saved.log_probability, found.log_probability)
    assert [str(name) for name in saved.run.values] == ["clean", "sae-error", "epsilon-random"]
    return saved


def test_the_likeliest_of_the_clean_run_come_first(loaded, found):
    log_p = full_pass("gpt2", loaded.model.hf, TOKENS.ids[[1, 7]]).logits[:, AT].log_softmax(-1)
    best = log_p.sort(descending=True)
    np.testing.assert_allclose(found.log_probability.sel(run="clean"), best.values[:, :25], rtol=1e-9)
    names = json.loads(found.attrs["predicted"])
    assert names == [[f"token {one}" for one in row] for row in best.indices[:, :25].tolist()]
    assert json.loads(found.attrs["prompts"])[0] == " ".join(map(str, TOKENS.ids[1, : AT + 1].tolist()))


def test_other_runs_are_those_of_a_sweep_with_that_token_replaced(loaded, sae, found, tmp_path):
    sweep = Sweep(
        site="resid_pre:1",
        directions=("sae-error", "epsilon-random"),
        saes=(sae,),
        path=Substitute(),
        positions=str(AT),
        sequences=8,
        seed=3,
    )
    kl = run_sweep(sweep, loaded, TOKENS, tmp_path / "run").kl.isel(step=0)
    for case, sequence in enumerate((1, 7)):
        for kind in ("sae-error", "epsilon-random"):
            expected = float(kl.sel(direction=f"{kind}:one-l0-5", sequence=sequence))
            assert float(found.kl.sel(run=kind)[case]) == pytest.approx(expected, rel=1e-6)
    assert float(abs(found.kl.sel(run="clean")).max()) == 0


def test_a_token_keeps_its_rank_in_every_run(loaded, sae, found):
    edits = {(1, "resid_pre"): lambda x: x}
    seen = full_pass("gpt2", loaded.model.hf, TOKENS.ids[[1]], [(1, "resid_pre")], edits).seen[1, "resid_pre"]
    from tiltmeter.saes.names import load_at_site

    at = load_at_site(sae, loaded.model, loaded.model.site("resid_pre:1"))
    replaced = seen.clone()
    replaced[:, AT] = at.reconstruct(loaded.model.centre(seen, at.site))[:, AT]
    logits = full_pass("gpt2", loaded.model.hf, TOKENS.ids[[1]], (), {(1, "resid_pre"): lambda _: replaced}).logits
    best = [int(name.removeprefix("token ")) for name in json.loads(found.attrs["predicted"])[0]]
    expected = logits[0, AT].log_softmax(-1)[best]
    torch.testing.assert_close(torch.tensor(found.log_probability.sel(run="sae-error")[0].to_numpy()), expected)


def test_prompts_of_ones_own_end_where_they_end(loaded, sae, tmp_path):
    speaking = LoadedModel(loaded.model, numbers(), loaded.facts)
    text = "0 4 9 11"
    asked = Predictions("resid_pre:1", (sae,), (), AT, prompts=(text, "0 7"))
    found = asked.run(speaking, TOKENS, tmp_path / "run", "test")
    log_p = full_pass("gpt2", loaded.model.hf, torch.tensor([[0, 4, 9, 11]])).logits[0, -1].log_softmax(-1)
    np.testing.assert_allclose(found.log_probability.sel(run="clean")[0], log_p.sort(descending=True).values[:25])
    assert json.loads(found.attrs["prompts"]) == [text, "0 7"]
    assert asked.sequences == 1
    with pytest.raises(TiltmeterError, match="has no tokenizer, so no text can be its prompt"):
        asked.run(loaded, TOKENS, tmp_path / "mute", "test")
