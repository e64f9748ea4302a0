"""Statistics of an SAE's latents and errors, against a loop over tokens and numpy's least squares."""

import numpy as np
import pytest
import torch

from small_saes import SITE, as_it_is, at, centre, random_sae
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes import at_site
from tiltmeter.saes.latent_statistics import LatentStatistics, fit_latents
from tiltmeter.saes.sae import TopK
from tiny_models import VOCABULARY, WIDTH, full_pass, tiny

BOUNDARY, LATENTS = 0, 40
DEAD = [3, 17]


def some_tokens(sequences=20, length=9):
    ids = torch.randint(1, VOCABULARY, (sequences, length), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = ids[3, 4] = ids[5, 8] = BOUNDARY
    return TokenSet(ids, "tokens", BOUNDARY, {})


TOKENS = some_tokens()


def sae(seed=0, **changes):
    found = random_sae(WIDTH, LATENTS, seed, scale=3.0, **changes)
    found.b_enc[DEAD] = -1e6
    return found


def fit(found, family="gpt2", policy="out", batch=32):
    model = SplitModel(tiny(family))
    bound = at(found, lambda x: model.centre(x, SITE))
    return fit_latents(model, TOKENS, SITE, BosPolicy(statistics=policy), {"A": bound}, batch=batch)["A"]


def activations(family="gpt2", policy="out"):
    """By sequence, the counted activations as measured."""
    stream = full_pass(family, tiny(family), TOKENS.ids, [(1, "resid_pre")]).seen[1, "resid_pre"]
    stream = centre(stream) if family == "gpt2" else stream
    return [x[ids != BOUNDARY] if policy == "out" else x for x, ids in zip(stream, TOKENS.ids, strict=True)]


def reconstruction(found, x, family):
    f = ((x - found.input_bias) @ found.W_enc + found.b_enc).clamp(min=0)
    s = f @ found.W_dec + found.b_dec
    return f, centre(s) if family == "gpt2" else s


@pytest.mark.parametrize(("family", "policy"), [("gpt2", "out"), ("gpt2", "in"), ("llama", "out")])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_statistics_equal_a_loop_over_tokens(family, policy, batch, monkeypatch):
    monkeypatch.setattr(at_site, "CHUNK_ELEMENTS", 11 * LATENTS)
    found = sae()
    stats = fit(found, family, policy, batch)
    fires, apart, sequences = np.zeros(LATENTS, int), [], []
    counted = activations(family, policy)
    for x in counted:
        f, s = reconstruction(found, x, family)
        sequences.append({int(i) for i in (f > 0).nonzero()[:, 1]})
        for token in range(len(x)):
            apart.append(float((s[token] - x[token]).norm()))
            fires += (f[token] > 0).numpy()
    x = torch.cat(counted)
    assert stats.count == len(x) == {"out": 20 * 8 - 2, "in": 20 * 9}[policy]
    assert stats.firing.tolist() == fires.tolist()
    assert stats.alive.tolist() == [count > 0 for count in fires]
    assert not stats.alive[DEAD].any()
    assert stats.fewest == min(map(len, sequences)) < max(map(len, sequences))
    np.testing.assert_allclose(stats.frequency, fires / len(x))
    np.testing.assert_allclose(stats.l0, fires.sum() / len(x))
    np.testing.assert_allclose(stats.distance, np.mean(apart), rtol=1e-12)
    variance = float((x - x.mean(0)).square().sum())
    np.testing.assert_allclose(stats.explained_variance, 1 - np.square(apart).sum() / variance, rtol=1e-10)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_linear_part_is_numpys_least_squares_and_what_is_left_is_orthogonal_to_x(family):
    found = sae()
    stats, x = fit(found, family), torch.cat(activations(family))
    error = reconstruction(found, x, family)[1] - x
    ones = torch.cat([x, torch.ones(len(x), 1)], -1).numpy()
    solution, _, rank, _ = np.linalg.lstsq(ones, error.numpy(), rcond=1e-10)
    assert rank == WIDTH + (family == "llama")  # a centred stream is singular
    predicted = stats.predicted_error(x)
    np.testing.assert_allclose(predicted, ones @ solution, rtol=1e-9, atol=1e-9)
    rest = error - predicted
    assert np.abs(ones.T @ rest.numpy() / len(x)).max() < 1e-10
    assert np.abs(ones.T @ (error - x @ stats.linear).numpy() / len(x)).max() > 1e-3  # the offset matters
    assert rest.norm() > 0.05 * error.norm()  # and ReLU leaves something
    if family == "gpt2":
        assert predicted.mean(-1).abs().max() < 1e-9


def test_an_error_that_is_linear_is_linear_all_of_it():
    found = random_sae(WIDTH, LATENTS, activation=lambda pre: pre)
    stats, x = fit(found, "llama"), torch.cat(activations("llama"))
    error = ((x - found.input_bias) @ found.W_enc + found.b_enc) @ found.W_dec + found.b_dec - x
    torch.testing.assert_close(stats.predicted_error(x), error, rtol=1e-9, atol=1e-9)


def test_a_float32_model_gives_the_same_split():
    """Rounding leaves a centred stream a little variance along (1, ..., 1), which must not be inverted."""
    model = SplitModel(tiny("gpt2", dtype=torch.float32))
    bound = at(sae(dtype=torch.float32), lambda x: model.centre(x, SITE))
    stats = fit_latents(model, TOKENS, SITE, BosPolicy(), {"A": bound})["A"]
    expected = fit(sae())
    torch.testing.assert_close(stats.linear, expected.linear, rtol=1e-3, atol=1e-3)
    assert (stats.linear.sum(0).abs().max()) < 1e-3


def test_topk_fires_k_times():
    assert fit(sae(bias=0.5, activation=TopK(5))).l0 == 5


def test_all_saes_in_one_pass():
    model = SplitModel(tiny("gpt2"))
    saes = {name: at(sae(seed, name=name)) for seed, name in enumerate("AB")}
    together = fit_latents(model, TOKENS, SITE, BosPolicy(), saes)
    assert list(together) == ["A", "B"]
    for name, one in together.items():
        alone = fit_latents(model, TOKENS, SITE, BosPolicy(), {name: saes[name]})[name]
        for key, value in one.to_arrays().items():
            np.testing.assert_array_equal(value, alone.to_arrays()[key])
    assert (together["A"].firing != together["B"].firing).any()


def test_arrays_and_back(tmp_path):
    stats = fit(sae())
    np.savez(tmp_path / "latents.npz", **stats.to_arrays())
    with np.load(tmp_path / "latents.npz") as arrays:
        found = LatentStatistics.from_arrays(dict(arrays))
    for (name, value), again in zip(vars(stats).items(), vars(found).values(), strict=True):
        assert type(value) is type(again), name
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(again)), name


def test_wrong_widths_and_no_tokens_are_refused():
    model = SplitModel(tiny("gpt2"))
    wrong = {"A": at(random_sae(WIDTH + 2, 8))}
    message = f"SAE A has width {WIDTH + 2}, but activations at blocks.1.hook_resid_pre have width {WIDTH}; give"
    with pytest.raises(TiltmeterError, match=message):
        fit_latents(model, TOKENS, SITE, BosPolicy(), wrong)
    none = TokenSet(TOKENS.ids[:, :1], "short", BOUNDARY, {})
    with pytest.raises(TiltmeterError, match="short contains only boundary tokens; give longer"):
        fit_latents(model, none, SITE, BosPolicy(), {"A": at(sae(), as_it_is)})
