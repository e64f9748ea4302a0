"""Annotations are checked under pytest: shapes across arguments, and plain types."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float

from checked_types import CALLS, begin_test, checked, may_have_shapes
from tiltmeter.analysis.shapes import ks_distance
from tiltmeter.models.positions import parse_positions

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


def test_plain_types_must_be_right():
    check = checked(plain, typechecker=beartype)
    assert check(1, "x") == "x"
    with pytest.raises(Exception, match="violates type hint"):
        check("1", "x")
    with pytest.raises(Exception, match="violates type hint"):
        check(1, 2)


def test_the_first_calls_of_each_test_are_checked():
    check = checked(plain, typechecker=beartype)
    for _ in range(CALLS):
        with pytest.raises(Exception, match="violates type hint"):
            check("1", "x")
    assert check("1", "x") == "x"
    begin_test()
    with pytest.raises(Exception, match="violates type hint"):
        check("1", "x")


def test_tiltmeter_is_checked():
    with pytest.raises(Exception, match="Type-check error"):
        ks_distance(np.zeros(3), "x")
    with pytest.raises(Exception, match="violates type hint"):
        parse_positions(3, 8)
