"""The benchmark's command line: `python -m benchmarks`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.errors import TiltmeterError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def benchmark(
    works: Annotated[str, typer.Option(help="Workloads to run, any of the letters A, B, C and D.")] = "ABCD",
    contender: Annotated[
        list[str] | None,
        typer.Option(help="Run only this contender (hf-hooks, 'tiltmeter float32', ...). Repeat for several."),
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the random-weights model: gpt2, or tiny for a trial.")] = "gpt2",
    repetitions: Annotated[int, typer.Option(min=1, help="Timed runs of each workload by each contender.")] = 5,
    device: Annotated[str, typer.Option(help="Where the models run: cpu, cuda, cuda:1.")] = "cpu",
    scale: Annotated[int, typer.Option(min=1, help="Multiplies the number of sequences; use 16 or more on a GPU.")] = 1,
    out: Annotated[Path, typer.Option(help="JSON file for the record.")] = Path("bench.json"),
) -> None:
    """Measure the speed of tiltmeter and of other tools, and the error of their KL against float64.

    Run it on an otherwise idle machine. docs/benchmark.md explains the numbers.
    """
    from benchmarks.run import run_bench
    from benchmarks.tables import text

    record = run_bench(size, device, repetitions, works, contender or (), out, scale)
    typer.echo(text(record))
    typer.echo(f"\nrecord: {out}")


def main() -> None:
    """Run the benchmark. Wrong input ends with one sentence on stderr and status 2."""
    try:
        app(prog_name="python -m benchmarks")
    except TiltmeterError as error:
        typer.echo(f"benchmarks: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
