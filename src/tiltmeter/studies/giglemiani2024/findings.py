"""What a run found in the figures of Giglemiani et al. 2024, in a sentence or two each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tiltmeter.analysis.estimates import estimate
from tiltmeter.analysis.shapes import Shape, ks_distance
from tiltmeter.reports.tables.format import with_interval
from tiltmeter.studies.comparisons import too_few
from tiltmeter.studies.estimands import mean, read
from tiltmeter.studies.giglemiani2024.curve_statistics import STATISTICS, readout_of, sample, samples, step_length
from tiltmeter.studies.giglemiani2024.plots import ANYWHERE, DIRECTIONS
from tiltmeter.studies.results import Results

Find = Callable[[Results], str]


def examples(results: Results) -> str:
    """Where curves toward real and random activations end, and how far the ends of their steepest steps are."""
    curves = results["absolute"]
    if few := too_few(curves):
        return few
    found = []
    for name in ("ms-absolute", "kl-ms-absolute"):
        statistic = STATISTICS[name]
        readout = readout_of(curves, statistic.readout)
        ends = [
            f"{kind} {estimate(mean(kind, read(curves, readout, direction)[:, -1], ANYWHERE), 1)}"
            for kind, direction in DIRECTIONS.items()
        ]
        steepest = [f"{kind} {_mean(sample(results, name, kind))}" for kind in DIRECTIONS]
        found.append(
            f"Mean {curves[readout].attrs['long_name']} ({curves[readout].attrs['units']}) at the last step: "
            f"{', '.join(ends)}; mean MS step: {', '.join(steepest)}."
        )
    return " ".join([f"A step is {step_length(curves):.3g} L2.", *found])


def distribution(*names: str) -> Find:
    """Mean step of each type, its KS distance from real ones, and how many curves are censored."""

    def find(results: Results) -> str:
        found = {name: samples(results, name) for name in names}
        experiment = STATISTICS[names[0]].experiment
        if few := too_few(results["plateaus-real" if experiment == "plateaus" else experiment]):
            return few
        return " ".join(_sentence(STATISTICS[name].label, shapes) for name, shapes in found.items())

    return find


def _sentence(label: str, shapes: dict[str, Shape]) -> str:
    means = ", ".join(f"{kind} {_mean(shape)}" for kind, shape in shapes.items())
    return f"{label}, mean: {means}. KS distance from real: {_distances(shapes)}.{_censored(shapes)}"


def _mean(shape: Shape) -> str:
    if np.isnan(shape.value).all():
        return "none"
    found = estimate(mean("", shape.value, ANYWHERE), 1)
    return with_interval(found.value, found.low, found.high)


def _distances(shapes: dict[str, Shape]) -> str:
    """Those of all other types, the nearest first."""
    found = {kind: ks_distance(shapes["real"], shape) for kind, shape in shapes.items() if kind != "real"}
    return ", ".join(f"{kind} {found[kind]:.2f}" for kind in sorted(found, key=lambda kind: found[kind]))


def _censored(shapes: dict[str, Shape]) -> str:
    counts = {kind: int(shape.censored.sum()) for kind, shape in shapes.items()}
    if not any(counts.values()):
        return ""
    curves = max(int(np.sum(~np.isnan(shape.value) | shape.censored)) for shape in shapes.values())
    return (
        f" Censored, of {curves} curves each, and left out of these means: "
        f"{', '.join(f'{kind} {count}' for kind, count in counts.items() if count)}."
    )


def distances(results: Results) -> str:
    """By which statistics each type is the nearest to real activations, and how near."""
    if few := too_few(results["absolute"]):
        return few
    nearest: dict[str, list[str]] = {}
    for name, statistic in STATISTICS.items():
        shapes = samples(results, name)
        far = {kind: ks_distance(shapes["real"], shape) for kind, shape in shapes.items() if kind != "real"}
        if far:
            kind = min(far, key=lambda one: far[one])
            nearest.setdefault(kind, []).append(f"{statistic.label} {far[kind]:.2f}")
    orders = [f"{kind} by {len(found)} of {len(STATISTICS)} ({', '.join(found)})" for kind, found in nearest.items()]
    return f"Nearest to real activations, by KS distance: {'; '.join(orders)}."
