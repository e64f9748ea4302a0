"""Copies of configurations with other values are validated, as new ones are."""

from typing import Annotated

import pytest
from pydantic import Field

import tiltmeter as tm
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.config import Configuration


class Inner(Configuration):
    """A nested configuration."""

    names: tuple[str, ...] = ()


class Outer(Configuration):
    """A configuration of a few fields."""

    count: Annotated[int, Field(ge=1)]
    inner: Inner = Inner()
    text: str = "a"


def test_a_copy_has_the_new_values_and_knows_which_were_given():
    first = Outer(count=1, inner=Inner(names=("x",)))
    second = first.model_copy(update={"count": "2", "text": "b"})
    assert second == Outer(count=2, inner=Inner(names=("x",)), text="b") and type(second.count) is int
    assert (first.model_fields_set, second.model_fields_set) == ({"count", "inner"}, {"count", "inner", "text"})
    assert second.inner is first.inner and first.count == 1
    assert first.model_copy() == first
    assert (deep := first.model_copy(deep=True, update={"count": 2})).inner == first.inner
    assert deep.inner is not first.inner


@pytest.mark.parametrize(
    ("update", "sentence"),
    [
        ({"count": 0}, "count was 0: Input should be greater than or equal to 1"),
        ({"cuont": 2}, r"There is no cuont \(did you mean count\?\)"),
        ({"inner": {"names": 3}}, "inner.names was 3"),
    ],
)
def test_wrong_values_are_refused(update, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        Outer(count=1).model_copy(update=update)


def test_a_sweep_of_objects_can_be_copied():
    directions = {"mine": [1.0, 2.0], "isotropic": ...}
    readouts = {"f": lambda clean, change: change.logits.sum(-1), "kl": ...}
    path = tm.Straight(lengths=(1,))
    sweep = tm.Sweep(site="resid_pre:1", directions=directions, readouts=readouts, path=path)
    other = sweep.model_copy(update={"seed": 1})
    assert other.directions == sweep.directions and other.readouts == sweep.readouts and other.seed == 1
    with pytest.raises(TiltmeterError, match="directions= was the text"):
        sweep.model_copy(update={"directions": "isotropic"})
    with pytest.raises(TiltmeterError, match="did you mean resid_pre:1"):
        sweep.model_copy(update={"site": "residpre:1"})
