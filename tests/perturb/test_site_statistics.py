"""Statistics of real activations against whole-batch and brute-force computations.

The model is canned: an activation is looked up by token id, so that everything can be known exactly.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from tiltmeter import load_model
from tiltmeter.analysis.moments import Moments
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy, MassivePolicy
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.site_statistics import SiteStatistics, fit_statistics, mean_pair_distance
from tiltmeter.perturb.sources import Real

SITE = Site(2, "resid_pre")
OUT = BosPolicy(statistics="out")
IN = BosPolicy(statistics="in")
BOUNDARY = 0
COUNTED = MassivePolicy(statistics="in")


class Canned(SplitModel):
    """Gives the activations of a table."""

    def __init__(self, table):
        self.table = table

    def activation(self, tokens, site):
        """All of a model that statistics need."""
        return self.table[tokens]


def token_set(ids, boundary=BOUNDARY):
    return TokenSet(torch.as_tensor(ids), "some tokens", boundary, {})


@pytest.fixture(scope="module")
def canned():
    """Eleven sequences of nine tokens, every token another id; boundary tokens have activations 40 times as long."""
    table = 80 * torch.randn(100, 5, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0, 0, 0, -700])
    table[BOUNDARY] *= 40
    ids = torch.arange(1, 100).reshape(11, 9)
    ids[2, 4] = ids[7, 1] = ids[:6, 0] = BOUNDARY
    return Canned(table), token_set(ids)


@pytest.mark.parametrize("sizes", [[500], [1] * 500, [0, 7, 0, 193, 1, 299, 0]])
def test_moments_in_batches_are_those_of_the_whole(sizes):
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 6) + 1e4
    moments = Moments(6)
    for part in x.split(sizes):
        moments.update(part)
    whole = x.double().numpy()
    assert moments.count == 500
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance(), np.cov(whole.T), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("policy", [IN, OUT])
@pytest.mark.parametrize("batch", [1, 4, 32])
def test_statistics_are_those_of_the_tokens_that_count(canned, policy, batch):
    model, tokens = canned
    fitted = fit_statistics(model, tokens, SITE, policy, 1000, 0, batch, massive=COUNTED)
    counts = tokens.ids != BOUNDARY
    counts[:, 0] = False
    counts |= policy is IN
    x = model.table[tokens.ids[counts]].double()
    assert fitted.count == len(x) == (99 if policy is IN else 86)
    np.testing.assert_allclose(fitted.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(fitted.covariance, np.cov(x.T), rtol=1e-9)
    assert torch.equal(fitted.pool.double(), x)  # smaller than asked for: all of them
    assert fitted.norm == pytest.approx(float(x.norm(dim=-1).mean()))
    assert torch.equal(fitted.pool_sequences, counts.nonzero()[:, 0])


def test_boundary_tokens_change_the_statistics(canned):
    model, tokens = canned
    out, inside = (fit_statistics(model, tokens, SITE, policy, 1000, 0, massive=COUNTED) for policy in (OUT, IN))
    assert inside.covariance.trace() > 5 * out.covariance.trace()
    assert inside.norm > 2 * out.norm
    assert inside.pair_distance > 2 * out.pair_distance
    unknown = fit_statistics(model, replace(tokens, boundary=None), SITE, OUT, 1000, 0, massive=COUNTED)
    assert unknown.count == 88  # position 0 stays out where nobody knows the boundary token


def test_sequences_of_nothing_but_boundary_tokens_do_no_harm(canned):
    model, tokens = canned
    ids = tokens.ids.clone()
    ids[[0, 5]] = BOUNDARY
    fitted = [fit_statistics(model, token_set(ids), SITE, OUT, 1000, 0, batch) for batch in (1, 11)]
    assert fitted[0].count == fitted[1].count == 70
    np.testing.assert_allclose(fitted[0].covariance, fitted[1].covariance, rtol=1e-12)
    assert set(fitted[0].pool_sequences.tolist()) == set(range(11)) - {0, 5}


def test_the_pool_does_not_depend_on_the_batch_size(canned):
    model, tokens = canned
    pools = [fit_statistics(model, tokens, SITE, OUT, 30, 4, batch) for batch in (1, 3, 11)]
    for other in pools[1:]:
        assert torch.equal(pools[0].pool, other.pool)
        assert torch.equal(pools[0].pool_sequences, other.pool_sequences)
        assert pools[0].pair_distance == other.pair_distance
    assert len(pools[0].pool) == 30
    assert not torch.equal(pools[0].pool, fit_statistics(model, tokens, SITE, OUT, 30, 5).pool)


def test_the_pool_is_an_even_choice(canned, monkeypatch):
    monkeypatch.setattr("tiltmeter.perturb.site_statistics.mean_pair_distance", lambda real, seed: 0.0)  # for speed
    model, tokens = canned
    times = torch.zeros(100)
    for seed in range(100):
        pool = fit_statistics(model, tokens, SITE, OUT, 30, seed).pool
        times += (model.table[:, None] == pool).all(-1).sum(1)
    counts = times[times > 0]
    assert len(counts) == 86
    assert counts.sum() == 3000
    # without replacement, the counts of a fair choice spread less than independent ones
    assert stats.chi2.sf(float(((counts - 3000 / 86) ** 2).sum() / (3000 / 86 * (1 - 30 / 86))), 85) > 1e-3


def pairs_of_different_sequences(real):
    distances = torch.cdist(real.pool.double(), real.pool.double())
    return distances[real.sequences[:, None] != real.sequences]


@pytest.fixture
def all_pairs(monkeypatch):
    """As many as users get."""
    monkeypatch.setattr("tiltmeter.perturb.site_statistics.PAIRS", 100_000)


@pytest.mark.usefixtures("all_pairs")
@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [40, 5, 1], [1, 1]])
def test_mean_pair_distance_is_that_of_all_pairs_of_different_sequences(sizes):
    """Entries of one sequence lie together, so that pairs of one sequence would be seen at once."""
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    generator = torch.Generator().manual_seed(0)
    homes = 50 * torch.randn(len(sizes), 6, generator=generator)
    real = Real(homes[owners] + torch.randn(len(owners), 6, generator=generator), owners)
    pairs = pairs_of_different_sequences(real)
    tolerance = 1e-5 + 5 * float(pairs.std()) / 40_000**0.5
    assert mean_pair_distance(real, 1) == pytest.approx(float(pairs.mean()), abs=tolerance)
    assert abs(float(torch.cdist(real.pool, real.pool).mean()) - float(pairs.mean())) > tolerance


@pytest.mark.usefixtures("all_pairs")
def test_mean_pair_distance_of_gaussians():
    """Two standard normal vectors in d dimensions are √2 times the mean of a chi distribution apart."""
    real = Real(torch.randn(4000, 64, generator=torch.Generator().manual_seed(0)), torch.arange(4000))
    assert mean_pair_distance(real, 0) == pytest.approx(2**0.5 * stats.chi(64).mean(), rel=3e-3)
    assert mean_pair_distance(real, 0) == mean_pair_distance(real, 0) != mean_pair_distance(real, 1)


@pytest.mark.parametrize(
    ("ids", "pool", "said"),
    [
        (torch.arange(1, 3)[None], 100, "at least two tokens, and some tokens gave 1 "),
        (torch.zeros(4, 9, dtype=torch.long), 100, "gave 0 .boundary tokens are out"),
        (torch.arange(1, 10)[:, None], 100, "gave 0 "),
        (torch.arange(1, 91).reshape(10, 9), 1, "of the pool are of one sequence, and distances are taken between"),
    ],
)
def test_too_little_is_refused(canned, ids, pool, said):
    with pytest.raises(TiltmeterError, match=said):
        fit_statistics(canned[0], token_set(ids), SITE, OUT, pool, 0)


def test_arrays_keep_everything(canned):
    fitted = fit_statistics(*canned, SITE, OUT, 30, 0)
    again = SiteStatistics.from_arrays(fitted.to_arrays())
    for name, value in vars(fitted).items():
        kept = getattr(again, name)
        assert type(kept) is type(value)
        assert torch.equal(kept, value) if isinstance(value, torch.Tensor) else kept == value


def test_statistics_of_a_real_model():
    """In a LayerNorm model's centred stream; what batches round differently stays rounding."""
    model = load_model("nano").model
    ids = torch.randint(0, model.vocabulary, (6, 16), generator=torch.Generator().manual_seed(0))
    one, other = (fit_statistics(model, token_set(ids, None), SITE, OUT, 50, 0, batch) for batch in (2, 6))
    x = model.start(ids, SITE).activation[:, 1:].flatten(0, 1).double()
    torch.testing.assert_close(one.covariance, torch.cov(x.T), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.pool, other.pool, rtol=1e-4, atol=1e-4)
    assert torch.equal(one.pool_sequences, other.pool_sequences)
    assert one.mean.mean().abs() < 1e-5
    assert one.covariance.sum(-1).abs().max() < 1e-4 * one.covariance.diag().max()
