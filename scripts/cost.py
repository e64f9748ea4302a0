"""How the time and memory of a sweep on nano grow with sequences, directions and lengths (docs/benchmark.md).

python scripts/cost.py

Every row is measured in its own process. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiltmeter as tm

SEQUENCES, DIRECTIONS, LENGTHS = 2, 1, 4
"""Default value of each quantity that a row does not vary."""

LENGTH = 128
"""Number of tokens per sequence of nano."""

ROWS = {
    "sequences": ((2, 20, 200, 2000), lambda n: (n, DIRECTIONS, LENGTHS)),
    "directions": ((1, 10, 100, 1000), lambda n: (SEQUENCES, n, LENGTHS)),
    "lengths": ((4, 40, 400, 4000), lambda n: (SEQUENCES, DIRECTIONS, n)),
}


def measure(sequences: int, directions: int, lengths: int) -> dict[str, float]:
    """Measure a sweep: seconds, perturbed tokens, and the peak memory of this process in MiB."""
    import tiltmeter as tm
    from tiltmeter.runs.malloc import keep_freed_memory

    keep_freed_memory()
    loaded = tm.load_model("nano")
    run(loaded, 16, 1, LENGTHS)  # compiles
    seconds = run(loaded, sequences, directions, lengths)
    return {
        "seconds": seconds,
        "tokens": sequences * LENGTH * directions * lengths,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(loaded: tm.LoadedModel, sequences: int, directions: int, lengths: int) -> float:
    """Run a sweep and return its duration in seconds."""
    import tiltmeter as tm

    sweep = tm.Sweep(
        site="resid_pre:3",
        directions=tuple(f"isotropic@{draw}" for draw in range(1, directions + 1)),
        path=tm.Straight(lengths=tuple(80.0 * (step + 1) / lengths for step in range(lengths))),
        sequences=sequences,
        statistics_sequences=256,
    )
    tokens = loaded.load_tokens("nano", at_most=max(256, sequences))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        tm.run_sweep(sweep, loaded, tokens, folder)
        return time.perf_counter() - begin


def main() -> None:
    """Print the table, or measure one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=int, nargs=3, help="sequences, directions, lengths: only this, as JSON")
    asked = parser.parse_args().one
    if asked:
        print(json.dumps(measure(*asked)))
        return
    print("| varied | | perturbed tokens | seconds | tokens/s | peak memory, MiB |")
    print("|---|--:|--:|--:|--:|--:|")
    for axis, (values, row) in ROWS.items():
        for value in values:
            command = [sys.executable, __file__, "--one", *map(str, row(value))]
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            found = json.loads(ran.stdout.splitlines()[-1])
            speed = found["tokens"] / found["seconds"]
            print(
                f"| {axis} | {value:,} | {found['tokens']:,.0f} | {found['seconds']:.1f} | {speed:,.0f} "
                f"| {found['peak_mib']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
