"""Results of Giglemiani et al. 2024's experiments in worlds whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr

from tiltmeter.analysis.curves import Axes, build
from tiltmeter.studies.giglemiani2024.curve_statistics import PLATEAU, TYPES
from tiltmeter.studies.giglemiani2024.experiments import TARGET
from tiltmeter.studies.results import Results

L2, N, STEP, END = "l2@blocks.5.hook_resid_post", 600, 0.25, 60.0
GRID = np.arange(101)
PUBLISHED = {"real": 45.0, "synthetic-structured": 46.0, "synthetic-baseline": 55.0, "cov-random": 64.0}
NEARER = PUBLISHED | {"synthetic-baseline": 50.0}
REVERSED = {"real": 64.0, "synthetic-structured": 33.0, "synthetic-baseline": 55.0, "cov-random": 59.0}
EQUAL = dict.fromkeys(PUBLISHED, 50.0)
FLAT = {"real": 15.0, "cov-random": 8.0, "synthetic-structured": 7.8, "synthetic-baseline": 6.2}
STEEP = {"real": 5.0, "cov-random": 6.0, "synthetic-structured": 9.0, "synthetic-baseline": 12.0}
LEVEL = dict.fromkeys(FLAT, 15.0)
SAE = json.dumps({"local-1": {"kind": "local", "l0": 24.0}})


def dataset(curves: Mapping[str, np.ndarray], lengths: np.ndarray) -> xr.Dataset:
    """Curves [sequence, step] by direction, as a sweep gives them; `lengths` is [direction, step, sequence]."""
    values = np.stack([one.T for one in curves.values()])
    readouts = {L2: values, "kl": values / 10, "length": lengths}
    axes = Axes(list(curves), [float(one) for one in GRID * STEP], "L2", range(values.shape[2]))
    tokens = np.ones((len(curves), values.shape[2]), dtype=np.int64)
    return build(readouts, tokens, axes, {"saes": SAE, "path_unit": "pair-distance", "pair_distance": 25.0})


def sigmoids(centres: np.ndarray) -> np.ndarray:
    """Curves from zero to about `END`, straight at first, steepest at these steps."""
    values = END / (1 + np.exp(-(GRID - centres[:, None]) / 6))
    return values - values[:, :1] + 0.1 * GRID


def ramps(ends: np.ndarray) -> np.ndarray:
    """Curves that reach the plateau's threshold at these steps and `END` at the last one."""
    threshold, ends = PLATEAU * END, ends[:, None]
    late = threshold + (END - threshold) * (GRID - ends) / (100 - ends)
    return np.where(ends >= GRID, threshold * GRID / ends, late)


def directions(kinds: Mapping[str, float]) -> dict[str, str]:
    """The name of each type's direction."""
    return {kind: f"{kind}-difference" + (":local-1" if kind.startswith("s") else "") for kind in kinds}


def targets(centres: Mapping[str, float], seed: int, distance: float = 100 * STEP) -> xr.Dataset:
    """A sweep toward each type; a sequence's curves are late or early together."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 5, N)
    found = {kind: sigmoids(centre + shared + rng.normal(0, 1, N)) for kind, centre in centres.items()}
    found["sae-reconstruction"] = sigmoids(centres["real"] + shared + rng.normal(0, 0.5, N))
    names = directions(found)
    lengths = np.full((len(found), 101, N), distance) * (GRID / 100)[None, :, None]
    return dataset({names[kind]: found[kind] for kind in TYPES}, lengths)


def results(
    absolute: Mapping[str, float], relative: Mapping[str, float], plateaus: Mapping[str, float], noise: float = 0.6
) -> Results:
    """A run in which the curves are as said."""
    rng = np.random.default_rng(5)
    bases = {
        f"plateaus-{base}": dataset({TARGET: ramps(end + rng.normal(0, noise, N))}, np.ones((1, 101, N)))
        for base, end in plateaus.items()
    }
    return Results({"absolute": targets(absolute, 1), "relative": targets(relative, 2), **bases}, {})
