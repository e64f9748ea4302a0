"""Blends: weighted sums of (sample - x), the same samples for all weights."""

import pytest
import torch

from contexts import NONE_MASSIVE, context_at
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.blends import build_blend
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.registry import rng_key
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.runs.rng import Address

D = 5


@pytest.fixture
def statistics():
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(40, D, generator=generator)
    return SiteStatistics(
        count=40,
        mean=pool.double().mean(0),
        covariance=pool.double().T.cov(),
        pool=pool,
        pool_sequences=torch.arange(10).repeat_interleave(4),
        pair_distance=3.0,
        norm=2.0,
        massive=NONE_MASSIVE,
    )


def context(name):
    x = torch.randn(3, 2, D, generator=torch.Generator().manual_seed(1))
    return context_at(Address(0, rng_key(DirectionName.parse(name)), torch.arange(3), torch.arange(2)), x)


def vector(name, statistics):
    return build_blend(DirectionName.parse(name), statistics).vector(context(name))


def test_weights_are_those_of_one_set_of_samples(statistics):
    first = vector("blend:1*real+0*real", statistics)
    second = vector("blend:0*real+1*real", statistics)
    assert not torch.allclose(first, second)
    mixed = vector("blend:0.25*real+0.75*real", statistics)
    torch.testing.assert_close(mixed, 0.25 * first + 0.75 * second)
    torch.testing.assert_close(vector("blend:-0.5*real+1.5*real", statistics), -0.5 * first + 1.5 * second)


def test_weights_of_one_lead_to_points_between_the_samples(statistics):
    name = "blend:0.5*real+0.5*cov-random"
    x = context(name).x
    ends = [x + vector(f"blend:{one}*real+{1 - one}*cov-random", statistics) for one in (1, 0)]
    torch.testing.assert_close(x + vector(name, statistics), (ends[0] + ends[1]) / 2)
    assert torch.cdist(ends[0].flatten(0, 1), statistics.pool).min(1).values.max() < 2e-3


def test_real_samples_are_of_other_sequences(statistics):
    x = context("blend:1*real").x
    samples = x + vector("blend:1*real", statistics)
    nearest = torch.cdist(samples, statistics.pool.expand(3, -1, -1)).argmin(-1)
    assert (statistics.pool_sequences[nearest] != torch.arange(3)[:, None]).all()


def test_sources_draw_independently(statistics):
    name = "blend:1*cov-random+1*isotropic"
    gaussian, isotropic = (
        vector(f"blend:{a}*cov-random+{b}*isotropic", statistics) + context(name).x for a, b in ((1, 0), (0, 1))
    )
    factor = torch.linalg.lstsq(isotropic.flatten(0, 1).double(), (gaussian - statistics.mean).flatten(0, 1).double())
    left = isotropic.flatten(0, 1).double() @ factor.solution - (gaussian - statistics.mean).flatten(0, 1)
    assert left.norm() > 0.1  # the same normal numbers would fit exactly


def test_all_weights_share_an_rng_key():
    keys = [
        rng_key(DirectionName.parse(f"blend:{terms}"))
        for terms in ("0.5*real+0.5*cov-random", "1*real+-2*cov-random", "1*real", "1*cov-random")
    ]
    assert keys == ["blend:real+cov-random", "blend:real+cov-random", "blend:real", "blend:cov-random"]


@pytest.mark.parametrize(
    "name",
    [
        "blend:",
        "blend:real",
        "blend:0.5*real+",
        "blend:0.5*real0.5*real",
        "blend:1*x",
        "blend:nan*real",
        "blend:1e400*real",
        "blend:1*real*2",
    ],
)
def test_what_is_no_blend_is_refused(name):
    with pytest.raises(TiltmeterError, match="give finite weights and sources"):
        DirectionName.parse(name)


def test_names_are_read():
    assert DirectionName.parse("blend:.5*real+-1e-3*isotropic").terms == ((0.5, "real"), (-0.001, "isotropic"))
