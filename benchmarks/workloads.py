"""What is measured: four pieces of work that the papers consist of, the same for every contender.

Weights, tokens and directions are random, and everyone gets the same: nothing here depends on what a text says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from tiltmeter.errors import TiltmeterError

SIZES: Mapping[str, GPT2Config] = {
    "gpt2": GPT2Config(bos_token_id=0, eos_token_id=0),
    "tiny": GPT2Config(n_layer=3, n_embd=64, n_head=4, vocab_size=512, n_positions=128, bos_token_id=0, eos_token_id=0),
}
"""Sizes of the random model: GPT-2 small; one to try the benchmark on."""

EMBEDDING_STD, MATRIX_STD = 0.14, 0.05
"""So that the next-token distribution has an entropy of some nats, as a trained model's; GPT-2's own initialisation
gives a flat one."""


@dataclass(frozen=True)
class Workload:
    """Activations of a few layers, moved at some positions and by some lengths, and what is read of it."""

    name: str
    title: str
    tokens: Int[Tensor, "sequence position"]
    layers: tuple[int, ...]
    """The layers in front of which activations are moved, one after the other."""
    directions: Float[Tensor, "layer sequence position d_model"]
    """Zero where nothing is moved."""
    lengths: tuple[float, ...]
    read: range
    """Positions that are read; the first of them is the first that is moved."""
    readouts: tuple[str, ...]
    """`kl`, and `l2` of the stream after the last block, or `loss`."""

    def change(
        self, layer: int, lengths: tuple[float, ...], sequences: slice
    ) -> Float[Tensor, "point batch position d_model"]:
        """How far activations are moved at these lengths."""
        scale = torch.tensor(lengths, device=self.directions.device)[:, None, None, None]
        return scale * self.directions[self.layers.index(layer), sequences]

    def batches(self, sequences: int) -> list[slice]:
        """So many sequences at a time."""
        return [slice(begin, begin + sequences) for begin in range(0, len(self.tokens), sequences)]

    def to(self, device: str) -> Workload:
        """The same, there."""
        return Workload(**{**vars(self), "tokens": self.tokens.to(device), "directions": self.directions.to(device)})


def random_gpt2(size: str, seed: int = 0) -> GPT2LMHeadModel:
    """A GPT-2 with random weights, without dropout, in float32.

    Raises:
        TiltmeterError: no such size.
    """
    if size not in SIZES:
        raise TiltmeterError(f"{size!r} is not a size of the benchmark's model; choose from {', '.join(SIZES)}.")
    model = GPT2LMHeadModel(SIZES[size]).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, EMBEDDING_STD if "wte" in name else MATRIX_STD, generator=generator)
    return model


def make_workloads(size: str, seed: int = 0, scale: int = 1) -> dict[str, Workload]:
    """The four workloads, and `precision`: short and with lengths over five decades, for errors by size of KL.

    `scale` multiplies the numbers of sequences: a GPU is idle with those that keep a processor busy.
    """
    config = SIZES[size]
    middle, last = config.n_layer // 2, config.n_layer - 1
    long = 128 if config.n_positions >= 128 else config.n_positions
    make = _Maker(config, torch.Generator().manual_seed(seed), scale)
    whole, both = range(long), ("kl", "l2")
    decades = tuple(float(x) for x in torch.logspace(-3.25, 2, 22))
    made = (
        make("A", "every position moved, 11 lengths", 4, long, (middle,), whole, _ladder(60, 11), both),
        make("B", "last of 10 tokens moved, 101 lengths", 8, 10, (1,), range(9, 10), _ladder(50, 101), both),
        make(
            "C",
            "one token moved, 16 read, 21 lengths",
            2,
            long,
            (middle,),
            range(32, 48),
            _ladder(60, 21),
            both,
        ),
        make(
            "D",
            "each layer in turn, one substitution",
            4,
            long,
            tuple(range(last + 1)),
            whole,
            (20.0,),
            ("kl", "loss"),
        ),
        make("precision", "lengths from 0.001 to 100", 1, 64, (middle,), range(64), decades, ("kl",)),
    )
    return {work.name: work for work in made}


def _ladder(longest: int, steps: int) -> tuple[float, ...]:
    return tuple(float(x) for x in torch.linspace(0, longest, steps))


class _Maker:
    """Draws tokens and directions, one workload after the other."""

    def __init__(self, config: GPT2Config, generator: torch.Generator, scale: int) -> None:
        self.config, self.generator, self.scale = config, generator, scale

    def __call__(
        self,
        name: str,
        title: str,
        sequences: int,
        length: int,
        layers: tuple[int, ...],
        read: range,
        lengths: tuple[float, ...],
        readouts: tuple[str, ...],
    ) -> Workload:
        sequences *= 1 if name == "precision" else self.scale
        moved = range(read.start, read.start + 1) if name == "C" else read
        shape = (len(layers), sequences, length, self.config.n_embd)
        directions = torch.randn(shape, generator=self.generator)
        directions /= directions.norm(dim=-1, keepdim=True)
        mask = torch.zeros(length)
        mask[list(moved)] = 1
        return Workload(
            name=name,
            title=title,
            tokens=torch.randint(self.config.vocab_size, (sequences, length), generator=self.generator),
            layers=layers,
            directions=directions * mask[:, None],
            lengths=lengths,
            read=read,
            readouts=readouts,
        )
