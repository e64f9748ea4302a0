"""Counter-based random numbers: each has an address, not a place in a stream.

Every number is a function of (seed, direction, sequence, position, draw), so results do not depend on the batch size,
the order of shards or the number of workers. The generator is Philox 4x32-10 (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), vectorised over tokens.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


class Address(NamedTuple):
    """The tokens that random numbers are drawn for, and the seed, direction and draw."""

    seed: int
    direction: str
    sequences: Int[Tensor, "batch"]
    """Index of each sequence in the token set."""
    positions: Int[Tensor, "position"]
    draw: int = 0


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox 4x32-10: four random 32-bit words (held in int64) for each counter of four 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, high1 = (product0 >> 32) & _MASK, (product1 >> 32) & _MASK
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, product1 & _MASK, high0 ^ c3 ^ k1, product0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def words(address: Address, stream: str, count: int) -> Int64[Tensor, "batch position count"]:
    """`count` random 32-bit words for each token. `stream` separates uses within one direction."""
    digest = hashlib.blake2b(f"{address.seed}/{address.direction}/{stream}".encode(), digest_size=8).digest()
    key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))
    blocks = torch.arange(math.ceil(count / 4))
    sequence, position, block = torch.broadcast_tensors(
        address.sequences.long().cpu()[:, None, None], address.positions.long().cpu()[None, :, None], blocks
    )
    draw = torch.full_like(block, address.draw)
    return torch.stack(philox((block, position, sequence, draw), key), dim=-1).flatten(-2)[..., :count]


def normal(address: Address, stream: str, count: int) -> Float64[Tensor, "batch position count"]:
    """Independent standard normal numbers (Box and Muller 1958)."""
    pairs = (words(address, stream, 2 * math.ceil(count / 2)).double() + 0.5).unflatten(-1, (-1, 2)) / 2**32
    radius, angle = (-2 * pairs[..., 0].log()).sqrt(), 2 * math.pi * pairs[..., 1]
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten(-2)[..., :count]


def uniform(address: Address, stream: str, count: int) -> Float64[Tensor, "batch position count"]:
    """Independent uniform numbers in [0, 1) with 53 random bits."""
    pairs = words(address, stream, 2 * count).unflatten(-1, (-1, 2))
    return ((pairs[..., 0] << 21) + (pairs[..., 1] >> 11)).double() / 2**53


def random_order(number: int, seed: int) -> tuple[int, ...]:
    """A random permutation of the first `number` sequences, a function of the seed.

    Adjacent sequences of a token set often come from one document, so its first ones are not a random sample.
    """
    address = Address(seed, "order of sequences", torch.arange(number), torch.zeros(1, dtype=torch.int64))
    return tuple(uniform(address, "priority", 1).flatten().argsort(stable=True).tolist())
