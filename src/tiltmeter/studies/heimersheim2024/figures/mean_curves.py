"""Core results, sections 1 and 2, and the last layer: a thin line for each of some prompts, and the mean of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tiltmeter.analysis.curves import documents_of
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.reports.charts.chart import Axis, Chart, Line, Mark, Panel, Rule
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.styles import Style, style
from tiltmeter.studies.estimands import combined, pair_distance, read, readout_name
from tiltmeter.studies.heimersheim2024.curve_statistics import small_step_rate
from tiltmeter.studies.heimersheim2024.estimands import (
    MEDIUM_STRAIGHT,
    SHORT_SPHERE,
    SHORT_STRAIGHT,
    earlier,
    gap_shrinks,
    last_layer_gap,
    last_layer_order,
    plateau,
    random_base_rises,
    real_base_flat,
    stronger,
)
from tiltmeter.studies.heimersheim2024.experiments import NAIVE, OTHER_BASE, RANDOM, RANDOM_BASE, REAL
from tiltmeter.studies.heimersheim2024.figures.wording import (
    SENSITIVE,
    TITLE,
    both,
    continuations,
    estimates_of,
    threshold_rule,
)
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

SINGLE = 20
"""Prompts whose own curves are drawn, about as many as the post has curves."""

GRID = 41
"""Points of a mean curve by distance."""


class Series(NamedTuple):
    """Curves of one kind: where they were measured, and how they are drawn."""

    name: str
    experiment: str
    direction: str
    style: Style
    singles: int = SINGLE
    """Prompts whose own curves are drawn."""
    continued: bool = False
    """Whether what its small steps predict is drawn, too."""


def _bases(mode: str) -> tuple[Series, ...]:
    """Random targets, on the post's two kinds of base."""
    return (
        Series("real base", mode, RANDOM, style("clean"), continued=True),
        Series("random base", f"{mode}-random-base", RANDOM, style(RANDOM_BASE), continued=True),
    )


def _more_bases(mode: str) -> tuple[Series, ...]:
    """The same, and the mean on another prompt's activation."""
    other = Series("another prompt's activation as base", f"{mode}-other-base", RANDOM, style(OTHER_BASE), singles=0)
    return (*_bases(mode), other)


def _directions(experiment: str, *names: str) -> tuple[Series, ...]:
    """Directions from the prompt's own activation."""
    return tuple(Series(name, experiment, name, style(name)) for name in names)


def _by_step(series: Sequence[Series]) -> Callable[[Results], Chart]:
    """KL, and L2 after the last block, by angle or by length in ‖x‖."""

    def chart(results: Results) -> Chart:
        return Chart((tuple(_stepwise(results, series, readout) for readout in ("kl", "l2")),))

    return chart


def _by_distance(series: Sequence[Series]) -> Callable[[Results], Chart]:
    """KL, and L2 after the last block, by the distance from the base."""

    def chart(results: Results) -> Chart:
        return Chart((tuple(_distancewise(results, series, readout) for readout in ("kl", "l2")),))

    return chart


def _late_layer(results: Results) -> Chart:
    """Rows: the study's layer, the last one. Columns: KL, L2 after the last block."""
    rows = []
    for experiment in ("sphere", "sphere-last-layer"):
        series = _directions(experiment, RANDOM, REAL)
        title = f"perturbed at {results[experiment].attrs['site']}"
        rows.append(tuple(replace(_stepwise(results, series, readout), title=title) for readout in ("kl", "l2")))
    return Chart(tuple(rows))


def _stepwise(results: Results, series: Sequence[Series], readout: str) -> Panel:
    first = results[series[0].experiment]
    name = readout_name(first, readout)
    thin, means, continued = [], [], []
    for one in series:
        curves = results[one.experiment]
        x, values = curves.step.values, read(curves, name, one.direction)
        thin += [Line(one.name, x, value, one.style, thin=True) for value in values[: one.singles]]
        table = results.table(one.experiment)
        rows = table[(table.readout == name) & (table.direction == one.direction)].sort_values("step")
        y, low, high = (rows[column].to_numpy(np.float64) for column in ("mean", "low", "high"))
        means.append(Line(one.name, np.sort(x), y, one.style, low, high))
        along = read(curves, "length", one.direction)
        continued += _continued(results, one, readout, np.sort(x), along, float(np.nanmax(values)))
    rule = (threshold_rule(),) if readout == "kl" else ()
    marks = (*thin, *means, *continued, *rule)
    return Panel("", Axis(axis_label(first.step)), Axis(axis_label(first[name])), marks)


def _continued(
    results: Results, one: Series, readout: str, x: np.ndarray, distance: np.ndarray, highest: float
) -> list[Line]:
    """The mean over prompts of what small steps predict, up to the highest measured value; bases alone have it."""
    if not one.continued:
        return []
    predicted = small_step_rate(results[one.experiment], one.direction, readout).at(distance)
    if not np.isfinite(predicted).any():
        return []
    middle = np.nanmean(predicted, axis=0)
    look = one.style._replace(marker="", linestyle=(0.0, (4.0, 1.6)))
    return [Line(f"{one.name}, continued from small steps", x, np.where(middle <= highest, middle, np.nan), look)]


def _distancewise(results: Results, series: Sequence[Series], readout: str) -> Panel:
    first = results[series[0].experiment]
    name = readout_name(first, readout)
    curves = {
        one: tuple(np.asarray(read(results[one.experiment], which, one.direction)) for which in ("length", name))
        for one in series
    }
    reach = min(float(np.nanmin(along[:, -1])) for along, _ in curves.values())
    grid = np.linspace(0.0, reach, GRID)
    thin, means, continued = [], [], []
    for one, (along, values) in curves.items():
        pairs = list(zip(along, values, strict=True))
        thin += [Line(one.name, x, y, one.style, thin=True) for x, y in pairs[: one.singles]]
        mean, low, high, _ = mean_interval(
            np.stack([np.interp(grid, x, y) for x, y in pairs], -1), documents=documents_of(results[one.experiment])
        )
        means.append(Line(one.name, grid, mean, one.style, low, high))
        same = np.broadcast_to(grid, (len(values), GRID))
        continued += _continued(results, one, readout, grid, same, float(np.nanmax(values)))
    rule = Rule(pair_distance(first), text="pair distance")
    marks: tuple[Mark, ...] = (*thin, *means, *continued, rule)
    return Panel("", Axis("distance from the base (L2)"), Axis(axis_label(first[name])), marks)


_READ = (
    "KL(clean ‖ perturbed) of the next-token prediction (left) and L2 distance after the last block (right). The last "
    "of ten tokens is perturbed and read"
)
_LINES = (
    f"Thin: {SINGLE} prompts, each with its own random draw (the post shows one prompt with many draws; see "
    "one-prompt). Thick: mean of all prompts, with 95 % intervals over prompts."
)
_TARGETS = (
    "Perturbations toward samples with the mean and covariance of real activations, the same targets for all bases."
)
_BASES = "Bases: the prompt's own activation (real), and such a sample in its place (random)."
_OTHER = "A third base, not drawn by the post, is another prompt's activation in the place of the prompt's own."
_DISTANCE = (
    "Each prompt's path ends at the norm of its base, and mean curves end where the shortest path ends. Dashed "
    "vertical line: the pair distance."
)
_CONTINUED = (
    "Dashed curves: what the two smallest steps predict, KL as a parabola and L2 as a straight line, the mean over "
    "prompts. A plateau ends where a curve leaves it upwards."
)
_PLATEAU = (
    "Real bases plateau: the perturbation's effect stays minimal for a while. On random bases the curves rise at once."
)

CORE_1 = PaperFigure(
    title=f"{TITLE}, core result 1: activation plateaus",
    caption=f"{_READ}, by the distance from the base. {_TARGETS} {_BASES} {_LINES} {_DISTANCE} {_CONTINUED}",
    claimed=_PLATEAU,
    needs=("straight", "straight-random-base"),
    chart=_by_distance(_bases("straight")),
    finding=both(
        estimates_of(combined(plateau("kl", SHORT_STRAIGHT), plateau("kl", MEDIUM_STRAIGHT))), continuations("straight")
    ),
)

CORE_2 = PaperFigure(
    title=f"{TITLE}, core result 2: sensitive directions",
    caption=f"{_READ}, by the distance from the prompt's activation x, toward another real activation (real), a sample "
    f"with their mean and covariance (cov-random), and a naive, isotropic one. {_LINES} {_DISTANCE}",
    claimed=f"{SENSITIVE} Naive random directions are much less sensitive.",
    needs=("straight",),
    chart=_by_distance(_directions("straight", RANDOM, REAL, NAIVE)),
    finding=estimates_of(combined(stronger("kl", "straight", REAL, RANDOM), stronger("kl", "straight", NAIVE, RANDOM))),
)

FIGURE_1_STRAIGHT = PaperFigure(
    title=f"{TITLE}, section 1: plateaus in straight mode",
    caption=f"{_READ}, by the length in norms of the base. {_TARGETS} {_BASES} {_OTHER} {_LINES} {_CONTINUED}",
    claimed=_PLATEAU,
    needs=("straight", "straight-random-base", "straight-other-base"),
    chart=_by_step(_more_bases("straight")),
    finding=both(
        estimates_of(combined(plateau("l2", SHORT_STRAIGHT), plateau("kl", SHORT_STRAIGHT, "-other-base"))),
        continuations("straight"),
    ),
)

FIGURE_1_SPHERE = PaperFigure(
    title=f"{TITLE}, section 1: plateaus in sphere mode",
    caption=f"{_READ}, by the angle from the base, at constant norm. {_TARGETS} {_BASES} {_OTHER} {_LINES} "
    f"{_CONTINUED}",
    claimed="On a real base KL barely changes until the perturbation reaches 40 degrees; random activations do not "
    "follow this pattern.",
    needs=("sphere", "sphere-random-base", "sphere-other-base"),
    chart=_by_step(_more_bases("sphere")),
    finding=both(
        estimates_of(combined(plateau("kl", SHORT_SPHERE), random_base_rises, real_base_flat)), continuations("sphere")
    ),
)

FIGURE_2_STRAIGHT = PaperFigure(
    title=f"{TITLE}, section 2: sensitive directions in straight mode",
    caption=f"{_READ}, by the length in norms of the prompt's activation, toward another real activation and toward a "
    f"sample with their mean and covariance. {_LINES}",
    claimed=SENSITIVE,
    needs=("straight",),
    chart=_by_step(_directions("straight", RANDOM, REAL)),
    finding=estimates_of(combined(earlier("straight", "absolute"), earlier("straight", "relative"))),
)

FIGURE_2_SPHERE = PaperFigure(
    title=f"{TITLE}, section 2: sensitive directions in sphere mode",
    caption=f"{_READ}, by the angle from the prompt's activation, at constant norm, toward another real activation and "
    f"toward a sample with their mean and covariance. {_LINES}",
    claimed=SENSITIVE,
    needs=("sphere",),
    chart=_by_step(_directions("sphere", RANDOM, REAL)),
    finding=estimates_of(combined(earlier("sphere", "absolute"), earlier("sphere", "relative"))),
)

LATE_LAYER = PaperFigure(
    title=f"{TITLE}, comment: the same in the last layer",
    caption=f"{_READ}, by the angle from the prompt's activation, in the study's layer (above) and in the last one "
    f"(below). {_LINES}",
    claimed="Perturbed in the 12th layer rather than the 2nd, the difference between real and random directions "
    "disappears.",
    needs=("sphere", "sphere-last-layer"),
    chart=_late_layer,
    finding=estimates_of(
        combined(
            earlier("sphere", "absolute"),
            last_layer_order("absolute"),
            last_layer_gap("absolute"),
            gap_shrinks("absolute"),
        )
    ),
)
