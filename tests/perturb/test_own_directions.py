"""Directions given as objects: what they give at each token, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from contexts import NONE_MASSIVE, context_at
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.directions import Plain
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.own_directions import OfFunction, bind, of_vector, read_directions, shown
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Isotropic
from tiltmeter.runs.rng import Address
from tiltmeter.runs.versions import versioned

D = 6
ADDRESS = Address(0, "mine", torch.arange(2), torch.tensor([3, 4, 5, 9]))
X = torch.randn(2, len(ADDRESS.positions), D, generator=torch.Generator().manual_seed(0))
CONTEXT = context_at(ADDRESS, X)
VECTOR = torch.arange(1.0, 1 + D)


def only(given):
    (found,) = read_directions({"mine": given}).values()
    return found


@pytest.mark.parametrize(
    "given",
    [
        VECTOR,
        VECTOR.numpy(),
        VECTOR.tolist(),
        VECTOR.half(),
        VECTOR.clone().requires_grad_(),
        VECTOR.numpy()[::-1].copy()[::-1],
        VECTOR.numpy().astype(">f8"),
        pd.Series(VECTOR.numpy()),
        [*VECTOR],
    ],
)
def test_a_vector_is_one_direction_however_it_is_given(given):
    found = only(given)
    assert torch.equal(found.direction.vector(CONTEXT), VECTOR.expand_as(X))
    assert found.identity == only(VECTOR.double()).identity != only(2 * VECTOR).identity
    assert found.function is None


def test_later_changes_of_a_vector_have_no_effect():
    given = VECTOR.double()
    found = only(given)
    given *= -1
    assert bool((found.direction.vector(CONTEXT) > 0).all())


def test_a_vector_for_each_position_is_taken_at_the_positions_of_the_context():
    given = torch.randn(50, D)
    assert torch.equal(only(given).direction.vector(CONTEXT)[1], given[ADDRESS.positions])


def test_a_function_gets_the_activations_and_their_context():
    away = only(lambda x, context: x - context.whole().mean(1, True) if context.address is ADDRESS else None)
    assert torch.equal(away.direction.vector(CONTEXT), X - X.mean(1, True))
    assert torch.equal(only(lambda x, _: VECTOR).direction.vector(CONTEXT), VECTOR.expand_as(X))


def test_a_function_cannot_change_the_activations():
    before = X.clone()
    for change in (lambda x, _: x.mul_(0), lambda _, c: c.x.mul_(0), lambda _, c: c.whole().mul_(0)):
        only(change).direction.vector(CONTEXT)
        assert torch.equal(X, before)


def test_an_object_with_vector_is_called_and_checked_as_a_function_is():
    own = Plain(Isotropic(D))
    assert torch.equal(only(own).direction.vector(CONTEXT), own.vector(CONTEXT)) and only(own).identity == "a function"
    assert only(versioned(own, "3")).identity == "a function, version 3"
    own = SimpleNamespace(vector=lambda context: torch.randn_like(context.x))
    with pytest.raises(TiltmeterError, match="mine returned other vectors when called again"):
        only(own).direction.vector(CONTEXT)


@pytest.mark.parametrize(
    "function",
    [lambda x, _: x.mean((0, 1)), lambda x, _: x.roll(1, 0), lambda _, c: c.whole().flip(0)],
)
def test_vectors_that_depend_on_the_other_sequences_are_refused(function):
    with pytest.raises(TiltmeterError, match="mine returned other vectors for a sequence beside others than alone"):
        OfFunction("mine", function).check_alone(CONTEXT)


def test_vectors_may_depend_on_the_sequence_its_tokens_and_its_address():
    for own in (lambda x, c: x - c.whole().mean(1, True), Plain(Isotropic(D)), lambda x, c: x * c.counted()[..., None]):
        OfFunction("mine", own).check_alone(CONTEXT)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda x, _: x[0], r"mine returned something of shape .*; expected a tensor of shape \(2, "),
        (lambda x, _: x.tolist(), "mine returned something of type list"),
        (lambda x, _: x / 0, "mine returned NaN or an infinity"),
        (lambda x, _: torch.randn_like(x), "mine returned other vectors when called again"),
        (lambda x, _: x.cfloat(), "mine returned a tensor of torch.complex64"),
        (lambda x, _: x.to_sparse(), "mine returned a tensor of .* not sparse"),
        (lambda x: x, r"mine failed: TypeError: .*takes 1 positional argument"),
    ],
)
def test_functions_that_give_no_direction_are_refused(function, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        OfFunction("mine", function).vector(CONTEXT)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("isotropic", r"directions= was the text 'isotropic'; .*\('isotropic',\)"),
        ((), "directions= was empty"),
        ({}, "directions= was empty"),
        (VECTOR, r"directions= was of type Tensor; .*\{'mine': vector"),
        ({"mine": "along:v.npy"}, r"use the name as the label, \{'along:v.npy': \.\.\.\}"),
        ({"mine": 3}, "mine is of type int"),
        ({"mine": torch.zeros(D)}, "mine is zero"),
        ({"mine": torch.full((D,), torch.nan)}, "mine contains NaN"),
        ({"mine": torch.ones(2, 2, D)}, r"mine has shape \(2, 2, 6\)"),
        ({"mine": np.array(["a"])}, "mine is no vector"),
        ({"mine": torch.ones(D, dtype=torch.complex64)}, "expected real numbers"),
        ({"isotropic": VECTOR}, "'isotropic' .* is, or may be read as, a name"),
        ({"mine@2": VECTOR}, "one without : and @"),
        ({"mine": VECTOR.to_sparse()}, "torch.sparse_coo; expected real numbers"),
        ({"mine": np.ma.array(VECTOR.numpy(), mask=VECTOR > 0)}, "mine is no vector: it is a masked array"),
        ({" ": VECTOR}, "expected a text of one line that is not empty"),
        ({"a\nb": VECTOR}, "expected a text of one line"),
    ],
)
def test_what_is_no_direction_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        read_directions(given)


def test_a_configuration_shows_names_and_what_identifies_objects():
    assert shown(read_directions(["isotropic", "zero"])) == ("isotropic", "zero")
    found = shown(read_directions({"mine": VECTOR, "f": versioned(len, "1"), "zero": ...}))
    assert found == {"mine": only(VECTOR).identity, "f": "a function, version 1", "zero": None}


def test_vectors_of_another_width_than_the_sites_are_refused():
    for own in (only(VECTOR), of_vector(torch.ones(4, D).double())):
        assert bind(DirectionName("mine"), own, statistics(D), lambda x: x) is own.direction
        with pytest.raises(TiltmeterError, match=r"mine has width 6, but those at this site 7"):
            bind(DirectionName("mine"), own, statistics(7), lambda x: x)


def test_a_vector_of_which_the_model_sees_nothing_is_refused():
    for given in (torch.full((D,), 0.1), torch.ones(D) + 1e-9 * torch.arange(D)):
        with pytest.raises(TiltmeterError, match="mine has the same number in every coordinate"):
            bind(DirectionName("mine"), only(given), statistics(D), lambda x: x - x.mean(-1, keepdim=True))


def statistics(width):
    pool = torch.randn(8, width)
    mean, covariance = pool.double().mean(0), torch.cov(pool.double().T)
    return SiteStatistics(8, mean, covariance, pool, torch.arange(8) // 4, 1.0, 1.0, NONE_MASSIVE)
