"""Directions: unit vectors, what is and what is not in them, and what becomes of a target that is the activation."""

import pytest
import torch

from contexts import NONE_MASSIVE, context_at
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.directions import Along, Difference, Mixture, Plain, normalise
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.registry import DIRECTIONS, build_directions, check_direction_name, needs_sae
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Gaussian, Real
from tiltmeter.runs.rng import Address

WIDTH = 12
ADDRESS = Address(0, "test", torch.arange(4), torch.arange(6))
MANY = Address(0, "test", torch.arange(100), torch.arange(1000))


def centre(x):
    return x - x.mean(-1, keepdim=True)


def as_it_is(x):
    return x


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_statistics():
    """Of a centred stream, its mean far from zero."""
    pool = centre(30 * draw(200, WIDTH) + torch.linspace(-50, 90, WIDTH))
    x = pool.double()
    return SiteStatistics(200, x.mean(0), torch.cov(x.T), pool, torch.arange(200) // 4, 1.0, 1.0, NONE_MASSIVE)


STATISTICS = make_statistics()
X = centre(80 * draw(4, 6, WIDTH, seed=1))
CONTEXT = context_at(ADDRESS, X)
GIVEN = draw(WIDTH, seed=2)
VECTOR = DirectionName("along", "v")
NAMES = [DirectionName(kind) for kind in DIRECTIONS if not needs_sae(kind)]
ALL = {str(name): one for name, one in build_directions([*NAMES, VECTOR], STATISTICS, {VECTOR: Along(GIVEN)}).items()}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_push_is_a_unit_vector_for_each_token(name, dtype):
    x = X.to(dtype)
    unit, distance, _ = normalise(ALL[name], context_at(ADDRESS, x), centre)
    assert unit.dtype == distance.dtype == dtype
    assert unit.shape == x.shape
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones_like(distance), rtol=3e-7, atol=0)
    assert unit.mean(-1).abs().max() < 1e-7
    vector = centre(ALL[name].vector(context_at(ADDRESS, x)))
    torch.testing.assert_close(distance[..., None] * unit, vector, rtol=1e-5, atol=1e-4)
    assert (normalise(ALL[name], context_at(ADDRESS, x), as_it_is).unit.mean(-1).abs().max() > 1e-3) == (
        "iso" in name or name[0] == "a"
    )


@pytest.mark.parametrize("name", [str(name) for name in NAMES if DIRECTIONS[name.kind].is_random])
def test_tokens_have_directions_of_their_own_whatever_the_batch(name):
    unit = normalise(ALL[name], CONTEXT, centre).unit
    cosines = unit.flatten(0, 1) @ unit.flatten(0, 1).T
    assert (cosines - torch.eye(24)).max() < 0.999
    rows, columns = torch.tensor([3, 1]), torch.tensor([5, 0, 2])
    address = ADDRESS._replace(sequences=rows, positions=columns)
    some = normalise(ALL[name], context_at(address, X[rows][:, columns]), centre)
    torch.testing.assert_close(some.unit, unit[rows][:, columns], rtol=1e-5, atol=1e-6)


def test_every_name_is_what_it_says():
    def vectors(name):
        return ALL[name].vector(CONTEXT)

    torch.testing.assert_close(vectors("isotropic"), STATISTICS.isotropic.sample(CONTEXT, 1)[0])
    torch.testing.assert_close(vectors("isotropic-difference"), vectors("isotropic") - X)
    for kind, source in [("cov-random", STATISTICS.gaussian), ("real", STATISTICS.real)]:
        first, second = source.sample(CONTEXT, 2)
        torch.testing.assert_close(vectors(f"{kind}-difference"), first - X)
        torch.testing.assert_close(vectors(f"{kind}-mixture"), first - second)
    assert torch.equal(vectors("along:v"), GIVEN.expand_as(X))


def gaussian(mean):
    return Gaussian.fit(mean, STATISTICS.covariance)


@pytest.mark.parametrize("name", ["cov-random-mixture", "real-mixture"])
def test_a_mixture_has_no_trace_of_x(name):
    assert torch.equal(ALL[name].vector(CONTEXT), ALL[name].vector(context_at(ADDRESS, 3 * X + 5)))


def test_a_mixture_has_no_trace_of_the_mean():
    one = Mixture(gaussian(STATISTICS.mean)).vector(CONTEXT)
    other = Mixture(gaussian(torch.zeros(WIDTH).double())).vector(CONTEXT)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    one, other = (Difference(gaussian(mean)).vector(CONTEXT) for mean in (STATISTICS.mean, 0 * STATISTICS.mean))
    torch.testing.assert_close(one - other, STATISTICS.mean.float().expand_as(X), rtol=1e-4, atol=1e-4)


def test_expected_vectors():
    """E = 0 for a mixture and mean - x for a difference; a sample with nothing subtracted fails the latter."""
    x = X[:1, :1].expand(100, 1000, WIDTH)
    error = STATISTICS.covariance.diag().sqrt().float() / 100_000**0.5
    expected = STATISTICS.mean.float() - X[0, 0]

    def deviation(direction, mean):
        return float(((direction.vector(context_at(MANY, x)).double().mean((0, 1)) - mean) / error).abs().max())

    assert deviation(Mixture(STATISTICS.gaussian), 0) < 5 * 2**0.5
    assert deviation(Difference(STATISTICS.gaussian), expected) < 5
    assert deviation(Plain(STATISTICS.gaussian), expected) > 50
    assert deviation(Difference(STATISTICS.gaussian), 0) > 50


class Repeating:
    """A source that draws the same sample twice."""

    def sample(self, context, count):
        """The first sample, `count` times."""
        return STATISTICS.gaussian.sample(context, 1).expand(count, -1, -1, -1)


def test_a_mixture_of_one_sample_with_itself_has_no_direction():
    unit, distance, _ = normalise(Mixture(Repeating()), CONTEXT, centre)
    assert not unit.any()
    assert not distance.any()


@pytest.mark.parametrize("rounding", [0, 1e-7])
def test_a_target_that_is_the_activation_itself_has_no_direction(rounding):
    """Also where the model has rounded it differently, as in batches of another size; the other tokens keep theirs."""
    pool = X[:, 2] * (1 + rounding * draw(4, WIDTH))
    x = X.clone()
    x[0] = X[1, 2]
    source = Real(pool[:2], torch.tensor([0, 1]))  # each of these two sequences can draw only the other's activation
    address = ADDRESS._replace(sequences=torch.arange(2))
    unit, distance, _ = normalise(Difference(source), context_at(address, x[:2]), centre)
    assert not unit[0].any()
    assert not distance[0].any()
    torch.testing.assert_close(unit[1].norm(dim=-1), torch.ones(6))
    assert (distance[1] > 1).all()
    far = normalise(Difference(source), context_at(address, x[:2] * 1.001), centre)
    torch.testing.assert_close(far.distance[0], 1e-3 * x[0].norm(dim=-1), rtol=1e-2, atol=0)


def test_what_the_model_cannot_see_is_no_direction():
    direction = Along(torch.full((WIDTH,), 0.1))
    assert not normalise(direction, CONTEXT, centre).unit.any()
    assert normalise(direction, CONTEXT, as_it_is).unit.all()


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e-3, 1e6, 1e30])
def test_a_given_vector_of_any_length_is_the_same_direction(scale):
    expected = normalise(Along(GIVEN), CONTEXT, centre)
    unit, distance, _ = normalise(Along(scale * GIVEN), CONTEXT, centre)
    torch.testing.assert_close(unit, expected.unit)
    torch.testing.assert_close(distance / scale, expected.distance)
    assert torch.equal(unit[0, 0], unit[3, 5])


def test_nothing_is_edited_in_place():
    x, given = X.clone(), GIVEN.clone()
    for direction in ALL.values():
        normalise(direction, context_at(ADDRESS, x), centre)
    assert torch.equal(x, X)
    assert torch.equal(given, GIVEN)


def test_unknown_names_are_refused():
    with pytest.raises(TiltmeterError, match=r"'real-diference' is not a direction \(did you mean real-difference\?\)"):
        check_direction_name(DirectionName("real-diference"))
    with pytest.raises(TiltmeterError, match="'along:v' is not a direction"):
        check_direction_name(VECTOR)
