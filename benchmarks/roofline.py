"""The least time that the necessary products of matrices take here, at rates measured here.

Necessary is: the clean run once, up to the last position that is read; of perturbed runs, the layers after the site at
the positions that can change and are read; unembedding where KL is read. Arithmetic other than products of matrices is
not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GPT2Config

from benchmarks.workloads import Workload
from tiltmeter.models.differences.products import operand_precision, product

ROWS = {"cpu": 1024, "cuda": 16384}
COLUMNS, REPETITIONS = 2048, 9


@dataclass(frozen=True)
class Flops:
    """Of products of matrices, multiplications and additions."""

    clean: float
    perturbed: float


def necessary(work: Workload, config: GPT2Config) -> Flops:
    """What has to be done."""
    sequences, read = len(work.tokens), len(work.read)
    head = 2 * config.n_embd * config.vocab_size
    start, stop = work.read.start, work.read.stop
    whole = sum(_token_layer(config, keys) for keys in range(1, stop + 1))
    moved = sum(_token_layer(config, keys) for keys in range(start + 1, stop + 1))
    layers = sum(config.n_layer - layer for layer in work.layers)
    points = len(work.lengths)
    return Flops(
        clean=float(sequences * (config.n_layer * whole + read * head)),
        perturbed=float(sequences * points * (layers * moved + len(work.layers) * read * head)),
    )


def _token_layer(config: GPT2Config, keys: int) -> float:
    """One token in one block: four projections, and attention to so many keys."""
    return float(2 * 12 * config.n_embd**2 + 4 * keys * config.n_embd)


def matrix_rate(config: GPT2Config, device: torch.device, dtype: torch.dtype) -> float:
    """Flops a second of a block's and the unembedding's products, as fast as they go here: the best of several."""
    width = config.n_embd
    shapes = ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width), (COLUMNS, width))
    weights = [torch.randn(shape, device=device) for shape in shapes]
    rows = ROWS[device.type]
    inputs = [torch.randn(rows, shape[1], device=device).to(dtype) for shape in shapes]
    flops = sum(2 * rows * weight.numel() for weight in weights)

    def once() -> None:
        for x, weight in zip(inputs, weights, strict=True):
            product(x, weight)

    with operand_precision(dtype):
        return flops / min(_seconds(once, device) for _ in range(REPETITIONS))


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    """Of one call: the middle of a few."""
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)
