"""Addressed random numbers: the published generator, the same for any batch, and distributed as they say."""

import numpy as np
import pytest
import torch
from scipy import stats

from tiltmeter.runs.rng import Address, normal, philox, uniform, words

GRID = Address(7, "real-mixture", torch.arange(40, 45), torch.arange(3, 10), draw=2)
MANY = GRID._replace(sequences=torch.arange(50), positions=torch.arange(20))
KINDS = [words, normal, uniform]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers_of_random123(counter, key, answer):
    def parse(text):
        return [int(word, 16) for word in text.split()]

    result = philox(tuple(torch.tensor([word]) for word in parse(counter)), tuple(parse(key)))
    assert [int(word) for word in result] == parse(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_gets_the_same_numbers_in_any_batch(kind):
    whole = kind(GRID, "sample0", 9)
    assert whole.shape == (5, 7, 9)
    rows, columns = torch.tensor([4, 0, 3]), torch.tensor([6, 1])
    some = kind(GRID._replace(sequences=GRID.sequences[rows], positions=GRID.positions[columns]), "sample0", 9)
    assert torch.equal(some, whole[rows][:, columns])
    one = kind(GRID._replace(sequences=torch.tensor([42]), positions=torch.tensor([5])), "sample0", 9)
    assert torch.equal(one[0, 0], whole[2, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_numbers_are_the_first_of_more(kind):
    more = kind(GRID, "sample0", 12)
    for count in (1, 2, 5, 11):
        assert torch.equal(kind(GRID, "sample0", count), more[..., :count])


@pytest.mark.parametrize("kind", [normal, uniform])
@pytest.mark.parametrize(
    ("change", "stream"),
    [
        ({"seed": 8}, "sample0"),
        ({"direction": "real-difference"}, "sample0"),
        ({"draw": 3}, "sample0"),
        ({"sequences": MANY.sequences + 50}, "sample0"),
        ({"positions": MANY.positions + 20}, "sample0"),
        ({}, "sample1"),
    ],
)
def test_another_address_gives_unrelated_numbers(kind, change, stream):
    one = kind(MANY, "sample0", 10).flatten()
    other = kind(MANY._replace(**change), stream, 10).flatten()
    assert not (one == other).any()
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / len(one) ** 0.5


def test_tokens_of_one_batch_are_unrelated():
    numbers = normal(GRID._replace(sequences=torch.arange(6), positions=torch.arange(6)), "sample0", 2000)
    correlation = np.corrcoef(numbers.flatten(0, 1)) - np.eye(36)
    assert np.abs(correlation).max() < 5 / 2000**0.5
    neighbours = normal(MANY, "sample0", 100).flatten(0, 1)
    assert np.abs(np.corrcoef(neighbours.T) - np.eye(100)).max() < 5 / 1000**0.5


def test_normal_numbers_are_normal():
    numbers = normal(MANY, "sample0", 100).flatten().numpy()
    assert len(numbers) == 100_000
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    for power, moment, spread in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((numbers**power).mean() - moment) < 4 * (spread / len(numbers)) ** 0.5
    assert 5e-5 < (np.abs(numbers) > 3.719).mean() < 4e-4  # 2e-4 of them


def test_both_numbers_of_a_pair_are_independent():
    pairs = normal(MANY, "sample0", 100).reshape(-1, 2)
    assert abs(np.corrcoef(pairs[:, 0] ** 2, pairs[:, 1] ** 2)[0, 1]) < 4 / len(pairs) ** 0.5


def test_uniform_numbers_are_uniform():
    numbers = uniform(MANY, "sample0", 100).flatten().numpy()
    assert numbers.min() >= 0 and numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    bits = (numbers * 2**53).astype(np.int64)[:, None] >> np.arange(53) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / 100_000**0.5
    assert np.abs(np.corrcoef(bits.T) - np.eye(53)).max() < 5 / 100_000**0.5
