"""The benchmark's command line: `python -m benchmarks`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.cli.options import Device
from tiltmeter.errors import TiltmeterError

Works = Annotated[str, typer.Option(help="Workloads, of A, B, C and D.")]


def main(
    works: Works = "ABCD",
    contender: Annotated[
        list[str] | None, typer.Option(help="Only this one (hf-hooks, 'tiltmeter float32', …). Repeat for several.")
    ] = None,
    size: Annotated[str, typer.Option(help="The model, with random weights: gpt2, or tiny to try it out.")] = "gpt2",
    repetitions: Annotated[int, typer.Option(min=1, help="Times that each does each workload.")] = 5,
    device: Device = "cpu",
    scale: Annotated[int, typer.Option(min=1, help="How many times as many sequences; 16 or more suit a GPU.")] = 1,
    out: Annotated[Path, typer.Option(help="The record, a JSON file.")] = Path("bench.json"),
) -> None:
    """Time tiltmeter beside the tools that researchers use, and compare everyone's KL with float64.

    On a machine that does nothing else. What the numbers mean: docs/benchmark.md.
    """
    from benchmarks.run import run_bench
    from benchmarks.tables import text

    record = run_bench(size, device, repetitions, works, contender or (), out, scale)
    typer.echo(text(record))
    typer.echo(f"\nrecord: {out}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except TiltmeterError as error:
        typer.echo(f"benchmarks: {error}", err=True)
        sys.exit(2)
