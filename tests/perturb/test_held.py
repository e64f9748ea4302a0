"""Draws that are held at every token: their distributions, and that they are held."""

from dataclasses import replace

import pytest
import torch

from contexts import NONE_MASSIVE, context_at
from small_saes import random_sae
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.perturb.held import OF_STATISTICS, draws_of, features, permutations
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.own_directions import bind
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.runs.rng import Address
from tiltmeter.saes.at_site import SAEAtSite

D = 4
POOL = torch.randn(400, D, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.tensor([5.0, 1.0, 1.0, 0.1]))
STATISTICS = SiteStatistics(
    400, POOL.double().mean(0), torch.cov(POOL.double().T), POOL, torch.arange(400) // 4, 1.0, 1.0, NONE_MASSIVE
)


def vectors(kind, count, seed=0, sequences=(0, 7), direction="whatever"):
    context = context_at(
        Address(seed, direction, torch.tensor(sequences), torch.arange(3)), torch.randn(len(sequences), 3, D)
    )
    own = [bind(DirectionName(kind), one, STATISTICS, lambda x: x) for one in draws_of(kind, count)]
    return torch.stack([direction.vector(context) for direction in own])


@pytest.mark.parametrize("kind", OF_STATISTICS)
def test_a_draw_is_the_same_at_every_token_of_every_batch(kind):
    found = vectors(kind, 3)
    assert torch.equal(found, found[:, :1, :1].expand_as(found))
    assert torch.equal(found[:, :1], vectors(kind, 3, sequences=(5,), direction="another"))
    assert not torch.equal(found[:, 0, 0], vectors(kind, 3, seed=1)[:, 0, 0])
    assert len(found[:, 0, 0].unique(dim=0)) == 3


def test_draws_have_the_spread_of_their_kind():
    found = {kind: vectors(kind, 300)[:, 0, 0].double() for kind in OF_STATISTICS}
    expected = {
        "isotropic": torch.eye(D).double(),
        "cov-random-mixture": 2 * STATISTICS.covariance,
        "real-mixture": 2 * STATISTICS.covariance,
    }
    for kind, draws in found.items():
        scale = expected[kind].diagonal().sqrt()
        error = (draws.T @ draws / len(draws) - expected[kind]) / scale / scale[:, None]
        assert error.abs().max() < 0.4
        assert (draws.mean(0) / scale).abs().max() < 0.3
    for draw in found["real-mixture"][:3]:
        assert torch.cdist(POOL.double() + draw, POOL.double()).min() < 1e-5


def test_a_draw_without_a_direction_is_drawn_again():
    few = replace(STATISTICS, pool=POOL[:2].repeat(8, 1), pool_sequences=torch.arange(16) // 4)
    context = context_at(Address(0, "any", torch.tensor([0]), torch.arange(1)), torch.randn(1, 1, D))
    found = [
        bind(DirectionName("m"), one, few, lambda x: x).vector(context)[0, 0] for one in draws_of("real-mixture", 40)
    ]
    assert all(torch.allclose(one.abs(), (POOL[0] - POOL[1]).abs()) for one in found)  # a half was of equal ones
    none = replace(few, pool=POOL[:1].repeat(16, 1))
    with pytest.raises(TiltmeterError, match="100 random vectors of real-mixture were all zero"):
        bind(DirectionName("m"), draws_of("real-mixture", 1)[0], none, lambda x: x).vector(context)


def test_permutations_keep_the_coordinates():
    vector = torch.tensor([1.0, 2.0, 3.0, 40.0]).double()
    found = torch.stack(permutations("mine", vector, 200, 0))
    assert torch.equal(found.sort(-1).values, vector.expand_as(found))
    places = found.argmax(-1).bincount(minlength=D)
    assert places.min() > 25  # of 50 expected
    again = torch.stack(permutations("other", vector, 200, 0))
    assert not torch.equal(found, again)


def test_features_are_decoder_rows_without_replacement():
    sae = random_sae(D, 9)
    at = SAEAtSite(sae, Site(0, "resid_pre"), lambda x: x)
    rows = {tuple(row.tolist()) for row in sae.decoder.double()}
    found = [tuple(row.tolist()) for row in features(at, 20, 0)]
    assert len(found) == len(set(found)) == 9 and set(found) == rows
    assert len(features(at, 3, 0)) == 3
