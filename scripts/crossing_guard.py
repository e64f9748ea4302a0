"""How often bisection finds a different crossing than a full scan, and at what cost, on stored curves.

    python scripts/crossing_guard.py --threshold 0.5 RUN [RUN ...]

Replays `tiltmeter crossings` on the curves of finished sweeps, with guards of several sizes. No model runs: a point
requested by bisection is looked up in the scan.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from tiltmeter.analysis import curves
from tiltmeter.analysis.bisection import CrossingTarget, find_crossings
from tiltmeter.analysis.shapes import crossing

GUARDS = (0, 1, 2, 3, 4, 6, 8, 12, 16)


def looked_up(
    values: Float[np.ndarray, "curve step"],
    steps: Float[np.ndarray, " step"],
    rows: Int[np.ndarray, " row"],
    at: Float[np.ndarray, " row"],
) -> Float[np.ndarray, " row"]:
    """Look up the values of some curves, each at its own step."""
    return values[rows, np.searchsorted(steps, at)]


def replay(run: Path, readout: str, threshold: float, every: int) -> pd.DataFrame:
    """Return one row per guard: points per curve, and the curves whose crossing is not the scan's first."""
    block = curves.load(run / "curves.nc")[readout].sortby("step").transpose("direction", "sequence", "step")
    block = block.isel(step=slice(None, None, every))
    steps, values = block.step.values, block.values.reshape(-1, block.sizes["step"])
    values = values[np.isfinite(values).all(-1)]
    scan, above = crossing(values, steps, threshold), values > threshold
    several = (above[:, 1:] < above[:, :-1]).any(-1)
    rows = []
    for guard in GUARDS:
        goal = CrossingTarget(threshold=threshold, guard=guard)
        found = find_crossings(partial(looked_up, values, steps), len(values), steps, goal)
        missed = found.censored & ~scan.censored
        later = ~missed & ~scan.censored & (found.at != scan.value)
        rows.append(
            {
                "run": run.name,
                "steps": len(steps),
                "curves": len(values),
                "censored": int(scan.censored.sum()),
                "come back down": int(several.sum()),
                "guard": guard,
                "points": found.points.mean(),
                "later": int(later.sum()),
                "missed": int(missed.sum()),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table of every run, and the total."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--threshold", type=float, required=True, help="in units of the readout")
    parser.add_argument("--readout", default="kl")
    parser.add_argument("--every", type=int, default=1, help="of the scan's steps: 5 for a scan five times as coarse")
    asked = parser.parse_args()
    table = pd.concat([replay(run, asked.readout, asked.threshold, asked.every) for run in asked.runs])
    print(table.to_string(index=False, float_format="{:.2f}".format))
    total = table.assign(points=table.points * table.curves).groupby("guard", as_index=False).sum(numeric_only=True)
    total["points"] /= total.curves
    total["differ"] = 100 * (total.later + total.missed) / total.curves
    print("\nall runs (differ: % of curves)")
    columns = ["guard", "curves", "censored", "come back down", "points", "later", "missed", "differ"]
    print(total[columns].to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
