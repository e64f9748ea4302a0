"""Processor time of bisection and of a full scan, on nano: measurement only, without loading and statistics.

OMP_NUM_THREADS=1 python scripts/crossing_cost.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import tiltmeter as tm
from tiltmeter.perturb.registry import build_directions
from tiltmeter.perturb.site_statistics import fit_statistics
from tiltmeter.sweeps.crossing_measure import measure_crossings
from tiltmeter.sweeps.measure import measure_shard
from tiltmeter.sweeps.plan import make_plan

DIRECTIONS = ("isotropic", "cov-random-difference", "cov-random-mixture", "real-difference", "real-mixture")
SEQUENCES = 16
GOAL = tm.CrossingTarget(threshold=0.5)
CASES = (
    ("last", tm.Sphere(degrees=tuple(range(0, 181, 2)))),
    ("all", tm.Straight(lengths=tuple(range(0, 101, 5)))),
)


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of a second call, after a first one as warm-up."""
    work()
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> None:
    """Print one line per case."""
    nano = tm.load_model("nano")
    tokens = nano.load_tokens("nano", at_most=64)
    for positions, path in CASES:
        sweep = tm.Sweep(site="resid_pre:3", directions=DIRECTIONS, path=path, sequences=SEQUENCES, positions=positions)
        plan = make_plan(sweep, nano.model, tokens)
        statistics = fit_statistics(nano.model, tokens, plan.site, sweep.bos, sweep.pool, sweep.seed)
        directions = build_directions(plan.directions, statistics, {}, {})
        scan = seconds(partial(measure_shard, plan, directions, path, range(SEQUENCES)))
        found = seconds(partial(measure_crossings, plan, GOAL, directions, path, range(SEQUENCES)))
        points = measure_crossings(plan, GOAL, directions, path, range(SEQUENCES))["points"].mean()
        print(
            f"positions {positions}: {points:.1f} of {len(path.steps)} points a curve, {len(path.steps) / points:.1f} "
            f"times fewer; {found:.2f} s instead of {scan:.2f} s, {scan / found:.1f} times less"
        )


if __name__ == "__main__":
    main()
