"""The workloads: four kinds of work that the papers consist of, the same for every contender.

Weights, tokens and directions are random, with fixed seeds: times do not depend on what a text says.
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
"""Configurations of the random model: GPT-2 small, and a tiny one for trials of the benchmark."""

EMBEDDING_STD, MATRIX_STD = 0.14, 0.05
"""Standard deviations of the random weights. With them the next-token distribution has an entropy of a few nats, like
a trained model's; with GPT-2's own initialisation it would be nearly uniform."""


@dataclass(frozen=True)
class Workload:
    """Perturbations of a few layers, at some positions and lengths, and what is read of their effect."""

    name: str
    title: str
    tokens: Int[Tensor, "sequence position"]
    layers: tuple[int, ...]
    """Layers whose input is perturbed, one after the other."""
    directions: Float[Tensor, "layer sequence position d_model"]
    """Unit vectors; zero at positions that are not perturbed."""
    lengths: tuple[float, ...]
    read: range
    """Positions that are read; the first of them is the first that is perturbed."""
    readouts: tuple[str, ...]
    """Of `kl`, `l2` (of the residual stream after the last block) and `loss` (next-token)."""

    def change(
        self, layer: int, lengths: tuple[float, ...], sequences: slice
    ) -> Float[Tensor, "point batch position d_model"]:
        """What is added to the input of a layer: each length times the layer's directions."""
        scale = torch.tensor(lengths, device=self.directions.device)[:, None, None, None]
        return scale * self.directions[self.layers.index(layer), sequences]

    def batches(self, sequences: int) -> list[slice]:
        """Slices of at most `sequences` sequences each."""
        return [slice(begin, begin + sequences) for begin in range(0, len(self.tokens), sequences)]

    def to(self, device: str) -> Workload:
        """The same workload with its tensors on `device`."""
        return Workload(**{**vars(self), "tokens": self.tokens.to(device), "directions": self.directions.to(device)})


def random_gpt2(size: str, seed: int = 0) -> GPT2LMHeadModel:
    """A GPT-2 with random weights, without dropout, in float32.

    Raises:
        TiltmeterError: the size is unknown.
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
    """The four timed workloads A to D, and `precision`, from which errors by size of KL are measured.

    `precision` is a single short sequence with lengths over five decades. `scale` multiplies the number of sequences of
    the other four: those that keep a CPU busy leave a GPU idle.
    """
    config = SIZES[size]
    middle, last = config.n_layer // 2, config.n_layer - 1
    long = 128 if config.n_positions >= 128 else config.n_positions
    make = _Maker(config, torch.Generator().manual_seed(seed), scale)
    whole, both = range(long), ("kl", "l2")
    decades = tuple(float(x) for x in torch.logspace(-3.25, 2, 22))
    made = (
        make("A", "every position perturbed, 11 lengths", 4, long, (middle,), whole, _ladder(60, 11), both),
        make("B", "last of 10 tokens perturbed, 101 lengths", 8, 10, (1,), range(9, 10), _ladder(50, 101), both),
        make(
            "C",
            "one token perturbed, 16 read, 21 lengths",
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
    """Draws directions and tokens, one workload after the other, from one generator."""

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
        perturbed = range(read.start, read.start + 1) if name == "C" else read
        shape = (len(layers), sequences, length, self.config.n_embd)
        directions = torch.randn(shape, generator=self.generator)
        directions /= directions.norm(dim=-1, keepdim=True)
        mask = torch.zeros(length)
        mask[list(perturbed)] = 1
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
