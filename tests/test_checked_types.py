"""Shapes in annotations are checked under pytest, across arguments."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float

from checked_types import CALLS, begin_test, checked, may_have_shapes
from tiltmeter.analysis.shapes import ks_distance

Row = Float[np.ndarray, "n"]


@dataclass
class Pair:
    one: Row
    other: Row


def shaped(one: Row, other: Row) -> Row:
    return one


def nested(rows: "dict[str, list[Row] | None]") -> None: ...


def unknown(one: "NotThere", other: int) -> None: ...


def plain(number: int, anything: Any) -> str:
    return anything


@pytest.mark.parametrize(("function", "has"), [(shaped, True), (nested, True), (unknown, True), (plain, False)])
def test_where_jaxtyping_is_needed(function, has):
    assert may_have_shapes(function) == has


def test_shapes_must_agree():
    check = checked(shaped, typechecker=beartype)
    check(np.zeros(3), np.zeros(3))
    for one, other in ((np.zeros(3), np.zeros(2)), (np.zeros(3), np.zeros((3, 1))), (np.zeros(3, int), np.zeros(3))):
        with pytest.raises(Exception, match="Type-check error"):
            check(one, other)
    with pytest.raises(Exception, match="Type-check error"):
        checked(Pair, typechecker=beartype)(np.zeros(3), np.zeros(2))


def test_plain_types_are_left_to_mypy():
    assert checked(plain, typechecker=beartype)("1", 2) == 2


def test_the_first_calls_of_each_test_are_checked():
    check, wrong = checked(shaped, typechecker=beartype), (np.zeros(3), np.zeros(2))
    for _ in range(CALLS):
        with pytest.raises(Exception, match="Type-check error"):
            check(*wrong)
    check(*wrong)
    begin_test()
    with pytest.raises(Exception, match="Type-check error"):
        check(*wrong)


def test_tiltmeter_is_checked():
    with pytest.raises(Exception, match="Type-check error"):
        ks_distance(np.zeros(3), "x")
