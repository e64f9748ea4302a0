"""The curve statistics of Giglemiani et al. 2024: one step per curve, by type of activation.

The thresholds of the published code are absolute numbers for GPT-2 small. Where lengths are published, so are they.
Elsewhere they are scaled by the change of the output at the end of the curves, since that differs between models, and
between trained and random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from tiltmeter.analysis.shapes import Shape, auc_step, ks_distance, max_slope_step, nonlinearity_step, plateau_step
from tiltmeter.perturb.names import DirectionName
from tiltmeter.studies.estimands import read, readout_name
from tiltmeter.studies.giglemiani2024.experiments import BASES, STEPS, TARGET
from tiltmeter.studies.lengths import are_published
from tiltmeter.studies.results import NotMeasured, Results

TYPES = ("real", "cov-random", "synthetic-baseline", "synthetic-structured", "sae-reconstruction")
"""Types of activation; `cov-random` is the paper's random, `real` its model-generated."""

END_L2 = {"real-difference": 237.0, "cov-random-difference": 241.0}
"""Mean L2 after the last block of GPT-2 small at the end of curves to these targets (read by eye in the notebooks)."""

END_KL = 5.9
"""Mean KL at the end of curves to real activations in GPT-2 small, nats."""

FLAT_L2 = 0.02 / END_L2["real-difference"]
FLAT_KL = 0.02 / END_KL
"""In the published code, a curve has no max-slope step if no step rises by 0.02: this, as a fraction of the end."""

PLATEAU = 20.0 / END_L2[TARGET]
"""In the published code, a plateau ends at an L2 of 20: this, as a fraction of the end."""

MOST_CENSORED = 0.5
"""If a larger part of the curves is censored, most of the distribution lies beyond the path, and no mean is taken."""

Curves = Float[np.ndarray, "sequence step"]
Stops = Int[np.ndarray, " sequence"] | None
Readout = Literal["l2", "kl"]
Samples = dict[str, Shape]
"""One statistic of every curve, by type."""


class Statistic(NamedTuple):
    """One number per curve of an experiment."""

    label: str
    """For axes and tables: `MS step, absolute`."""
    experiment: Literal["absolute", "relative", "plateaus"]
    readout: Readout
    measure: Callable[[Curves, float, Stops], Shape]
    """From the curves, the readout at their end (a scale), and the number of steps that count in each curve."""


def max_slope(flat: float) -> Callable[[Curves, float, Stops], Shape]:
    """The max-slope step; censored if no step rises by more than this fraction of the end."""
    return lambda values, end, stop: max_slope_step(values, flat * end, stop)


def _auc(values: Curves, end: float, stop: Stops) -> Shape:
    return auc_step(values, stop)


def _nonlinearity(values: Curves, end: float, stop: Stops) -> Shape:
    return nonlinearity_step(values, stop=stop)


def _plateau(values: Curves, end: float, stop: Stops) -> Shape:
    return plateau_step(values, PLATEAU * end, stop)


STATISTICS: dict[str, Statistic] = {
    "ms-absolute": Statistic("MS step, absolute", "absolute", "l2", max_slope(FLAT_L2)),
    "ms-relative": Statistic("MS step, relative", "relative", "l2", max_slope(FLAT_L2)),
    "auc-absolute": Statistic("AUC step, absolute", "absolute", "l2", _auc),
    "auc-relative": Statistic("AUC step, relative", "relative", "l2", _auc),
    "nl-absolute": Statistic("NL step, absolute", "absolute", "l2", _nonlinearity),
    "nl-relative": Statistic("NL step, relative", "relative", "l2", _nonlinearity),
    "kl-ms-absolute": Statistic("MS step of KL, absolute", "absolute", "kl", max_slope(FLAT_KL)),
    "kl-ms-relative": Statistic("MS step of KL, relative", "relative", "kl", max_slope(FLAT_KL)),
    "ap": Statistic("AP step", "plateaus", "l2", _plateau),
}


def samples(results: Results, name: str) -> Samples:
    """One statistic of every curve, for each type that was measured.

    Raises:
        NotMeasured: none was.
    """
    return results.once(f"samples {name}", lambda: _samples(results, STATISTICS[name]))


def _samples(results: Results, statistic: Statistic) -> Samples:
    if statistic.experiment == "plateaus":
        return _of_bases(results, statistic)
    curves = results[statistic.experiment]
    end = _end(results["absolute"], "real-difference", statistic.readout)
    found = {}
    for direction in map(str, curves.direction.values):
        stop = stops(results, direction) if statistic.experiment == "absolute" else None
        values = read(curves, readout_name(curves, statistic.readout), direction)
        found[type_of(direction)] = statistic.measure(values, end, stop)
    return {kind: found[kind] for kind in TYPES if kind in found}


def _of_bases(results: Results, statistic: Statistic) -> Samples:
    end = _end(results["plateaus-real"], TARGET, statistic.readout)
    found = {base: results[f"plateaus-{base}"] for base in BASES if f"plateaus-{base}" in results.found}
    return {
        base: statistic.measure(read(curves, readout_name(curves, statistic.readout), TARGET), end, None)
        for base, curves in found.items()
    }


def sample(results: Results, name: str, kind: str) -> Shape:
    """One statistic of every curve of one type.

    Raises:
        NotMeasured: this type was not measured.
    """
    found = samples(results, name)
    if kind in found:
        return found[kind]
    reason = results.missing.get(f"plateaus-{kind}")
    raise NotMeasured(reason or f"No activations of the type {kind} were measured: they need an SAE at the site.")


def within_path(shape: Shape) -> Float[np.ndarray, " sequence"]:
    """The steps of curves, the last step of the path where censored: their mean is the mean restricted to the path.

    (Restricted mean survival time, Irwin 1949.) A mean without the censored curves would leave out the latest ones, and
    be the earlier the more of them there are. The published code does the same, with 99 or 100.

    Raises:
        NotMeasured: more than half are censored.
    """
    if (part := censored_part(shape)) > MOST_CENSORED:
        raise NotMeasured(f"{part:.0%} of the curves are censored, so the path does not show their mean step.")
    return np.where(shape.censored, float(STEPS), shape.value)


def censored_part(shape: Shape) -> float:
    """The part of the measured curves that is censored; 0 of none."""
    measured = int(np.sum(~np.isnan(shape.value) | shape.censored))
    return float(shape.censored.sum()) / measured if measured else 0.0


def ks_from_real(found: Samples) -> dict[str, float]:
    """KS distance of every other type from real activations."""
    return {kind: ks_distance(found["real"], shape) for kind, shape in found.items() if kind != "real"}


def stops(results: Results, direction: str) -> Int[np.ndarray, " sequence"]:
    """The number of absolute steps before a curve reaches its target, floor(distance / step); 0 without a target.

    The distance is the length of the last relative step, which ends at the target.
    """
    absolute, relative = results["absolute"], results["relative"]
    distance = relative["length"].sel(direction=direction, sequence=absolute.sequence).isel(step=-1)
    return np.nan_to_num(np.floor(distance.to_numpy() / step_length(absolute))).astype(np.int64)


def step_length(curves: xr.Dataset) -> float:
    """Length of an absolute step, L2."""
    return float(curves.step[1] - curves.step[0])


def type_of(direction: str) -> str:
    """The type of activation that a direction leads to."""
    return DirectionName.parse(direction).kind.removesuffix("-difference")


def _end(curves: xr.Dataset, direction: str, readout: Readout) -> float:
    """A readout at the end of the path: the published one, or the median over sequences here.

    Thresholds are fractions of it, so that with the published one they are the published numbers.
    """
    if are_published(curves):
        return END_L2[direction] if readout == "l2" else END_KL
    return float(np.nanmedian(read(curves, readout_name(curves, readout), direction)[:, -1]))
