"""Positions and the policy for boundary tokens."""

import pytest
import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy, Positions, Span, allowed, boundary_mask, parse_positions


@pytest.mark.parametrize(
    ("text", "perturbed", "read", "span"),
    [
        ("all", range(10), range(10), (0, 10)),
        (" all\n", range(10), range(10), (0, 10)),
        ("last", [9], [9], (9, 10)),
        ("0", [0], [0], (0, 1)),
        ("9", [9], [9], (9, 10)),
        ("4", [4], [4], (4, 5)),
        ("4+3", [4], [4, 5, 6, 7], (4, 8)),
        ("4+0", [4], [4], (4, 5)),
        ("6+3", [6], [6, 7, 8, 9], (6, 10)),
        ("3,7,9", [3, 7, 9], [3, 7, 9], (3, 10)),
        ("7, 3,3,  5", [3, 5, 7], [3, 5, 7], (3, 8)),
    ],
)
def test_what_a_text_means(text, perturbed, read, span):
    positions = parse_positions(text, 10)
    assert positions == Positions(tuple(perturbed), tuple(read))
    assert positions.span == span


@pytest.mark.parametrize("text", ["", "al", "ALL", "-1", "1.5", "3;4", "3,", ",3", "3-5", "+3", "4+", "4+2+1", "3,4+2"])
def test_what_is_not_understood_is_refused(text):
    with pytest.raises(TiltmeterError, match=r"were not understood; give all, last, .* or a list \(3,7,9\)"):
        parse_positions(text, 10)


@pytest.mark.parametrize(("text", "worst"), [("10", 10), ("9+1", 10), ("8+5", 13), ("3,12,4", 12)])
def test_positions_beyond_the_sequence_are_refused(text, worst):
    with pytest.raises(TiltmeterError, match=rf"Position {worst} was asked for, .* 10 tokens \(positions 0 to 9\)"):
        parse_positions(text, 10)


def test_a_span_cuts_its_positions():
    x = torch.arange(2 * 10 * 3).reshape(2, 10, 3)
    assert torch.equal(Span(4, 8).cut(x), x[:, 4:8])
    assert Span(4, 8).cut(x[..., 0]).shape == (2, 4)


def test_boundary_positions_are_the_first_and_those_of_the_token():
    tokens = torch.tensor([[0, 5, 0, 6], [5, 6, 7, 8]])
    before = tokens.clone()
    assert boundary_mask(tokens, 0).tolist() == [[True, False, True, False], [True, False, False, False]]
    assert boundary_mask(tokens, None).tolist() == [[True, False, False, False]] * 2
    assert torch.equal(tokens, before)


def test_in_is_every_position_and_out_leaves_the_boundary_ones():
    mask = torch.tensor([[True, False, True, False]])
    assert allowed(mask, "in").tolist() == [[True] * 4]
    assert allowed(mask, "out").tolist() == [[False, True, False, True]]
    assert mask.tolist() == [[True, False, True, False]]


def test_the_policy_has_three_parts_and_no_others():
    assert BosPolicy().model_dump() == {"statistics": "out", "perturbation": "in", "average": "in"}
    for wrong in ({"statistics": "maybe"}, {"averages": "in"}, {"average": True}):
        with pytest.raises(TiltmeterError):
            BosPolicy(**wrong)
