"""The floor: the least time that a workload's necessary matrix products take, at the rate measured on this machine.

It counts one clean run up to the last position that is read; for perturbed runs, the layers after the site at the
positions that can change and are read; and the unembedding where KL is read. Other arithmetic and memory traffic are
not counted, so the floor cannot be reached.
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
    """Floating-point operations of matrix products; a multiplication and an addition count as two."""

    clean: float
    perturbed: float


def necessary_flops(work: Workload, config: GPT2Config) -> Flops:
    """Count the operations that every implementation has to perform."""
    sequences, read = len(work.tokens), len(work.read)
    head = 2 * config.n_embd * config.vocab_size
    start, stop = work.read.start, work.read.stop
    whole = sum(_token_layer(config, keys) for keys in range(1, stop + 1))
    perturbed = sum(_token_layer(config, keys) for keys in range(start + 1, stop + 1))
    layers = sum(config.n_layer - layer for layer in work.layers)
    points = len(work.lengths)
    return Flops(
        clean=float(sequences * (config.n_layer * whole + read * head)),
        perturbed=float(sequences * points * (layers * perturbed + len(work.layers) * read * head)),
    )


def _token_layer(config: GPT2Config, keys: int) -> float:
    """Operations of one token in one block: projections (12 d² weights), and attention to `keys` positions."""
    return float(2 * 12 * config.n_embd**2 + 4 * keys * config.n_embd)


def matrix_rate(config: GPT2Config, device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate (flop/s) of the matrix products of a block and of the unembedding: the best of several runs."""
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
    """Time one call: the median of five, in seconds."""
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)
