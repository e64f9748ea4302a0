"""Sources: their distributions, and that no token is ever given an activation of its own sequence."""

import numpy as np
import pytest
import torch
from scipy import stats

from contexts import context_at
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.sources import Gaussian, Isotropic, Real
from tiltmeter.runs.rng import Address

MANY = Address(0, "test", torch.arange(100), torch.arange(1000))  # 100,000 tokens
OWNERS = torch.tensor([0, 0, 0, 1, 3, 3, 4, 4, 4, 4, 7, 7])
POOL = Real(torch.arange(12.0)[:, None] + torch.tensor([0.0, 0.5]), OWNERS)


def some_covariance(width=8, seed=0):
    shape = torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return shape @ torch.diag(torch.logspace(-2, 1, width, dtype=torch.float64)) @ shape.T


def entries(sample):
    """Which pool entry each sample is."""
    return sample[..., 0].long()


def moment_errors(sample, mean, covariance):
    """Errors of the empirical mean and covariance in their standard errors."""
    sample = sample.double().flatten(0, -2)
    variance = covariance.diag()
    mean_error = (sample.mean(0) - mean) / (variance / len(sample)).sqrt()
    spread = ((torch.outer(variance, variance) + covariance**2) / len(sample)).sqrt()
    return mean_error.abs().max(), ((torch.cov(sample.T) - covariance) / spread).abs().max()


def test_isotropic_is_standard_normal():
    sample = Isotropic(6).sample(context_at(MANY), 1)
    assert sample.shape == (1, 100, 1000, 6)
    assert max(moment_errors(sample, torch.zeros(6).double(), torch.eye(6).double())) < 5


def test_gaussian_has_the_mean_and_covariance_it_was_given():
    mean, covariance = torch.linspace(-3, 3, 8, dtype=torch.float64), some_covariance()
    gaussian = Gaussian.fit(mean, covariance)
    assert max(moment_errors(gaussian.sample(context_at(MANY), 1), mean, covariance)) < 5
    torch.testing.assert_close(gaussian.factor, gaussian.factor.T)
    # the same measurement sees missing correlations, and a mean that is 3 % of a deviation off
    independent = Gaussian.fit(mean, covariance.diag().diag())
    assert moment_errors(independent.sample(context_at(MANY), 1), mean, covariance)[1] > 50
    shifted = Gaussian.fit(mean + 0.03 * covariance.diag().sqrt(), covariance)
    assert moment_errors(shifted.sample(context_at(MANY), 1), mean, covariance)[0] > 5


def test_gaussian_of_a_centred_stream_stays_centred():
    """A centred stream's covariance is singular, here all the more so with fewer activations than dimensions."""
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(1)).double() * 80
    x = x - x.mean(-1, keepdim=True)
    covariance = torch.cov(x.T)
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(covariance)
    sample = Gaussian.fit(x.mean(0), covariance).sample(context_at(MANY._replace(positions=torch.arange(20))), 1)
    assert torch.isfinite(sample).all()
    assert sample.mean(-1).abs().max() < 1e-4
    assert sample.norm(dim=-1).mean() > 50


@pytest.mark.parametrize("source", [Isotropic(4), Gaussian.fit(torch.zeros(4).double(), some_covariance(4))])
def test_samples_drawn_together_are_independent(source):
    first, second = source.sample(context_at(MANY), 2).flatten(1, 2)
    across = np.corrcoef(first.T, second.T)[:4, 4:]
    assert np.abs(across).max() < 5 / 100_000**0.5


@pytest.mark.parametrize("source", [Isotropic(4), Gaussian.fit(torch.zeros(4).double(), some_covariance(4)), POOL])
def test_a_token_gets_the_same_sample_in_any_batch(source):
    address = MANY._replace(sequences=torch.arange(9), positions=torch.arange(6))
    rows, columns = torch.tensor([7, 2]), torch.tensor([5, 0, 3])
    some = source.sample(context_at(address._replace(sequences=rows, positions=columns)), 2)
    assert torch.allclose(some, source.sample(context_at(address), 2)[:, rows][:, :, columns], rtol=1e-6)


def test_real_never_gives_a_token_its_own_sequence():
    address = Address(3, "real-mixture", torch.arange(9), torch.arange(3000))
    first, second = entries(POOL.sample(context_at(address), 2))
    for entry in (first, second):
        assert not (OWNERS[entry] == address.sequences[:, None]).any()
    assert not (first == second).any()
    assert set(first.flatten().tolist()) == set(range(12))


@pytest.mark.parametrize("own", [0, 2, 3, 4, 7])
def test_every_eligible_real_activation_is_equally_likely(own):
    address = Address(5, "real-mixture", torch.tensor([own]), torch.arange(20_000))
    first, second = entries(POOL.sample(context_at(address), 2))[:, 0]
    eligible = [entry for entry in range(12) if OWNERS[entry] != own]
    pairs = np.zeros((12, 12))
    np.add.at(pairs, (first.numpy(), second.numpy()), 1)
    expected = [(a, b) for a in eligible for b in eligible if a != b]
    assert sum(pairs[pair] for pair in expected) == 20_000
    assert stats.chisquare([pairs[pair] for pair in expected]).pvalue > 1e-3


def test_the_draws_of_a_difference_and_of_a_mixture_agree_on_the_first():
    address = Address(5, "x", torch.arange(5), torch.arange(50))
    assert torch.equal(POOL.sample(context_at(address), 1)[0], POOL.sample(context_at(address), 2)[0])


@pytest.mark.parametrize(
    ("owners", "count", "left"), [([4, 4, 4], 1, 0), ([4, 4, 5], 2, 1), ([4], 1, 0), ([5, 5, 6], 4, 3)]
)
def test_a_pool_with_too_few_other_sequences_is_refused(owners, count, left):
    pool = Real(torch.randn(len(owners), 3), torch.tensor(owners))
    address = Address(0, "real-mixture", torch.tensor([9, 4]), torch.arange(2))
    with pytest.raises(TiltmeterError, match=f"{count} activations .* holds only {left}; make the pool larger"):
        pool.sample(context_at(address), count)


def test_the_last_eligible_activation_is_found():
    pool = Real(torch.tensor([[10.0], [11.0], [12.0], [13.0]]), torch.tensor([4, 4, 5, 6]))
    address = Address(0, "real-mixture", torch.tensor([4]), torch.arange(64))
    assert {tuple(pair) for pair in pool.sample(context_at(address), 2)[:, 0, :, 0].T.tolist()} == {
        (12.0, 13.0),
        (13.0, 12.0),
    }
