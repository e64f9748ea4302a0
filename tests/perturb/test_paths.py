"""Paths: lengths and angles are what was asked for, to the digits of the arithmetic."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.directions import Perturbation
from tiltmeter.perturb.paths import Path, Sphere, Straight, Substitute
from tiltmeter.sweeps.plan import Sweep

TYPES = [torch.float32, torch.float64]
LENGTHS = (0.0, 1e-3, 0.5, 1.0, 40.0, 300.0)
DEGREES = (0.0, 1e-3, 1.0, 40.0, 90.0, 135.0, 179.5, 180.0)
ALL = slice(None)


def reached(path, x, push, steps):
    """Where a path leads."""
    return x + path.changes(x, push, steps)


def draw(seed, dtype=torch.float64, scale=80.0):
    return (scale * torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def toward(vector):
    """The push that this vector is."""
    distance = vector.norm(dim=-1)
    return Perturbation(vector / distance[..., None], distance, vector)


def digits(dtype):
    """A small multiple of the rounding of one number."""
    return 8 * torch.finfo(dtype).eps


def angles(points, x):
    """Degrees between points and x, precise at both ends (Kahan)."""
    a, b = points.double() / points.double().norm(dim=-1, keepdim=True), x.double() / x.double().norm(dim=-1)[..., None]
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("unit", ["absolute", "norm", "target"])
def test_straight_lengths_are_exact(unit, dtype):
    x, vector = draw(0, dtype), draw(1, dtype, scale=5)
    points = reached(Straight(lengths=LENGTHS, unit=unit), x, toward(vector), ALL)
    assert points.dtype == dtype
    assert points.shape == (6, 3, 5, 24)
    scale = {"absolute": torch.ones(3, 5), "norm": x.norm(dim=-1), "target": vector.norm(dim=-1)}[unit]
    moved = (points - x).double()
    asked = torch.tensor(LENGTHS, dtype=torch.float64)[:, None, None] * scale
    room = digits(dtype) * (x.norm(dim=-1) + asked)
    assert ((moved.norm(dim=-1) - asked).abs() <= room).all()
    assert ((moved - asked[..., None] * toward(vector).unit).norm(dim=-1) <= room).all()
    assert torch.equal(points[0], x)


def test_a_target_is_reached_at_one():
    x, target = draw(0), draw(1)
    path = Straight(lengths=(0.0, 0.5, 1.0), unit="target")
    points = reached(path, x, toward(target - x), ALL)
    torch.testing.assert_close(points, torch.stack([x, (x + target) / 2, target]))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_substitute_is_where_the_vector_ends_and_zero_is_zero(dtype):
    x, target = draw(0, dtype), draw(1, dtype)
    path = Substitute()
    assert (path.steps, path.units) == ((1.0,), "substitution")
    points = reached(path, x, toward(target - x), ALL)
    assert points.shape == (1, 3, 5, 24)
    torch.testing.assert_close(points[0], target)
    assert not reached(path, x, toward(-x), ALL).any()  # to the last digit: an RMSNorm would blow up any rest


def test_pair_distances_become_absolute_lengths():
    path = Straight(lengths=(0.0, 0.5, 2.0), unit="pair-distance")
    resolved = path.resolved(81.59)
    assert resolved.unit == "absolute"
    assert resolved.steps == (0.0, 0.5 * 81.59, 2 * 81.59)
    assert resolved.units == "L2"
    x = draw(0)
    moved = (reached(resolved, x, toward(draw(1)), ALL) - x).norm(dim=-1)
    torch.testing.assert_close(moved[2], torch.full((3, 5), 163.18, dtype=torch.float64))
    for other in (Straight(lengths=(1.0,), unit="norm"), Sphere(degrees=(1.0,)), Substitute()):
        assert other.resolved(81.59) == other


@pytest.mark.parametrize("dtype", TYPES)
def test_on_the_sphere_the_norm_stays_and_the_angle_grows(dtype):
    x = draw(0, dtype)
    points = reached(Sphere(degrees=DEGREES), x, toward(draw(1, dtype)), ALL)
    assert points.dtype == dtype
    norms = x.double().norm(dim=-1).expand(len(DEGREES), -1, -1)
    torch.testing.assert_close(points.double().norm(dim=-1), norms, rtol=digits(dtype), atol=0)
    asked = torch.tensor(DEGREES, dtype=torch.float64)[:, None, None]
    assert ((angles(points, x) - asked).abs() <= np.rad2deg(digits(dtype))).all()
    assert torch.equal(points[0], x)
    torch.testing.assert_close(points[-1], -x, rtol=0, atol=digits(dtype) * float(norms.max()))


@pytest.mark.parametrize("degrees", [1e-7, 1e-5, 1e-3])
def test_small_angles_keep_their_digits(degrees):
    x, vector = draw(0), draw(1)
    points = reached(Sphere(degrees=(degrees,)), x, toward(vector), ALL)
    asked = torch.full((1, 3, 5), degrees, dtype=torch.float64)
    torch.testing.assert_close(angles(points, x), asked, rtol=1e-13 / np.deg2rad(degrees), atol=0)
    # float32 adds no more than the rounding of x itself
    rough = reached(Sphere(degrees=(degrees,)), x.float(), toward(vector.float()), ALL)
    assert ((rough - points).norm(dim=-1) < digits(torch.float32) * x.norm(dim=-1)).all()


def test_the_path_goes_toward_the_direction():
    """In the plane of x and d, on d's side, and through d's own direction."""
    x, vector = draw(0), draw(1)
    between = angles(vector, x)
    for token in [(0, 0), (2, 3)]:
        point = reached(Sphere(degrees=(float(between[token]),)), x, toward(vector), ALL)[0][token]
        unit = vector[token] / vector[token].norm()
        torch.testing.assert_close(point, x[token].norm() * unit)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_target_and_the_difference_to_it_give_one_sphere_path(dtype):
    x, target = draw(0, dtype), draw(1, dtype)
    path = Sphere(degrees=DEGREES)
    one, other = reached(path, x, toward(target), ALL), reached(path, x, toward(target - x), ALL)
    torch.testing.assert_close(one, other, rtol=0, atol=10 * digits(dtype) * 80 * 24**0.5)
    mixture = reached(path, x, toward(target - draw(2, dtype)), ALL)
    assert (one - mixture)[3].norm(dim=-1).min() > 10


@pytest.mark.parametrize("dtype", TYPES)
def test_a_direction_nearly_along_x_is_no_less_exact(dtype):
    """What of x is left in the direction after rounding must not tilt the path."""
    x = draw(0, dtype)
    points = reached(Sphere(degrees=DEGREES), x, toward(x + 1e-3 * draw(1, dtype)), ALL)
    asked = torch.tensor(DEGREES, dtype=torch.float64)[:, None, None]
    assert ((angles(points, x) - asked).abs() <= np.rad2deg(digits(dtype))).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("multiple", [1.0, -1.0])
def test_a_direction_along_x_leaves_x_where_it_is(dtype, multiple):
    x = draw(0, dtype)
    points = reached(Sphere(degrees=DEGREES), x, toward(multiple * x), ALL)
    assert torch.equal(points, x.expand_as(points))


@pytest.mark.parametrize("path", [Straight(lengths=LENGTHS), Sphere(degrees=DEGREES), Substitute()])
def test_no_direction_and_no_activation_stay_where_they_are(path):
    x = draw(0)
    points = reached(path, x, Perturbation(torch.zeros_like(x), torch.zeros(3, 5).double(), torch.zeros_like(x)), ALL)
    assert torch.equal(points, x.expand_as(points))
    assert torch.isfinite(reached(path, 0 * x, toward(draw(1)), ALL)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("path", [Straight(lengths=LENGTHS, unit="norm"), Sphere(degrees=LENGTHS[:5]), Substitute()])
def test_slices_of_steps_are_the_whole_and_nothing_is_edited(path, dtype):
    x, push = draw(0, dtype), toward(draw(1, dtype))
    before = (x.clone(), *(part.clone() for part in push))
    whole = reached(path, x, push, ALL)
    parts = torch.cat([reached(path, x, push, steps) for steps in (slice(0, 2), slice(2, 3), slice(3, 9))])
    assert len(whole) == len(path.steps)
    assert torch.equal(whole, parts)
    whole += 1
    assert all(torch.equal(now, then) for now, then in zip((x, *push), before, strict=True))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "path", [Straight(lengths=LENGTHS), Straight(lengths=LENGTHS, unit="target"), Sphere(degrees=DEGREES)]
)
def test_every_token_can_be_at_a_point_of_its_own(path, dtype):
    x, push = draw(0, dtype), toward(draw(1, dtype))
    whole = path.changes(x, push, ALL)
    index = torch.randint(len(path.steps), (4, 3, 5), generator=torch.Generator().manual_seed(2))
    steps = torch.tensor(path.steps, dtype=dtype)
    assert torch.equal(path.at(x, push, steps[index]), torch.take_along_dim(whole, index[..., None], 0))
    per_sequence = path.at(x, push, steps[index[:, :, :1]])  # as sequences bisect: all tokens of one at one step
    expected = torch.take_along_dim(whole, index[:, :, :1, None].expand(-1, -1, 5, -1), 0)
    assert torch.equal(per_sequence, expected)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), float("-inf")])
def test_lengths_and_angles_that_are_none_are_refused(value):
    with pytest.raises(TiltmeterError, match="a length is"):
        Straight(lengths=(0.0, value))
    with pytest.raises(TiltmeterError, match="angles must be degrees from 0 to 180"):
        Sphere(degrees=(0.0, value))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "straight", "lengths": []},
        {"kind": "sphere", "degrees": []},
        {"kind": "sphere", "degrees": [180.001]},
        {"kind": "straight", "lengths": [1.0], "unit": "metres"},
        {"kind": "straight", "degrees": [1.0]},
        {"kind": "helix", "lengths": [1.0]},
        {"kind": "substitute", "lengths": [1.0]},
    ],
)
def test_other_wrong_paths_are_refused(wrong):
    with pytest.raises(TiltmeterError):
        Sweep(site="resid_pre:1", path=wrong)


@pytest.mark.parametrize("path", [Straight(lengths=LENGTHS, unit="target"), Sphere(degrees=DEGREES), Substitute()])
def test_a_path_survives_json(path):
    assert TypeAdapter(Path).validate_json(path.model_dump_json()) == path
