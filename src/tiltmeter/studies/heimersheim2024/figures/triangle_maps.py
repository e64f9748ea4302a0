"""Section 3: sensitivity toward blends of three targets, as a map on a triangle."""

from __future__ import annotations

import numpy as np

from tiltmeter.reports.charts.chart import Axis, Chart, Panel, Triangle
from tiltmeter.studies.estimands import combined
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD, corner, triangle_crossings
from tiltmeter.studies.heimersheim2024.estimands import corner_is_optimum, real_corner_stands_out
from tiltmeter.studies.heimersheim2024.figures.wording import TITLE, estimates_of, median_crossing
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

SINGLE = 3
"""Prompts whose own triangles are drawn, as the post draws one."""

CORNERS = {
    "triangle-random": ("random", "random", "random"),
    "triangle-real": ("real", "random", "random"),
}
"""Names of corners: top, left, right."""

_CLAIMED = estimates_of(combined(corner_is_optimum("absolute"), real_corner_stands_out("absolute")))


def _chart(results: Results) -> Chart:
    """Rows: three random corners, one real corner. Columns: median of all prompts, single prompts."""
    angle = f"angle at KL {THRESHOLD:g}, degrees"
    rows = []
    for experiment, corners in CORNERS.items():
        found = triangle_crossings(results[experiment], "absolute")
        weights, angles = np.array(list(found)), np.stack(list(found.values()))
        median = np.median(angles[:, ~np.isnan(angles).any(axis=0)], axis=1)
        columns = {f"median of {angles.shape[1]} prompts": (f"median {angle}", median)}
        columns |= {f"prompt {number}": (angle, angles[:, number]) for number in range(min(SINGLE, angles.shape[1]))}
        rows.append(
            tuple(
                Panel(title, Axis(""), Axis(""), (Triangle(name, weights, _blank_where_censored(values), corners),))
                for title, (name, values) in columns.items()
            )
        )
    return Chart(tuple(rows), share=())


def _blank_where_censored(angles: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(angles), angles, np.nan)


def _finding(results: Results) -> str:
    """Median angles at the corners and in the middle of each map, and the estimates of the claims."""
    parts = []
    for experiment, names in CORNERS.items():
        found = triangle_crossings(results[experiment], "absolute")
        corners = [f"{name} {median_crossing(found[corner(number)], '°')}" for number, name in enumerate(names)]
        centre = min(found, key=lambda weights: max(weights) - min(weights))
        parts.append(f"{', '.join(corners)}, middle {median_crossing(found[centre], '°')}")
    return f"Median angle at KL {THRESHOLD:g}, at the corners: {'; '.join(parts)}. {_CLAIMED(results)}"


FIGURE_3 = PaperFigure(
    title=f"{TITLE}, section 3: local optima of sensitivity",
    caption=f"The angle at which KL passes {THRESHOLD:g}, in sphere mode, toward blends of three targets: three random "
    "ones (above); a real one at the top and two random ones (below). Left: median of all prompts; right: single "
    "prompts, as in the post. Blank where KL never passes.",
    claimed="Between random targets the map is expected to be symmetric. A real corner appears to be a local optimum "
    "of sensitivity, but only two random directions of 768 are tested beside it.",
    needs=("triangle-random", "triangle-real"),
    chart=_chart,
    finding=_finding,
)
