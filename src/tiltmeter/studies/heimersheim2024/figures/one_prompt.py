"""Section 2: many directions from one prompt, as the post shows them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tiltmeter.analysis.shapes import separation_auc
from tiltmeter.perturb.names import DirectionName
from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD, crossings
from tiltmeter.studies.heimersheim2024.experiments import DRAWS, RANDOM, REAL
from tiltmeter.studies.heimersheim2024.figures.wording import SENSITIVE, TITLE, threshold_rule
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


def _chart(results: Results) -> Chart:
    """Rows: straight and sphere mode. Columns: prompts, with all directions of each."""
    rows = []
    for mode in ("straight", "sphere"):
        curves = results[f"{mode}-draws"]
        x, y = Axis(axis_label(curves.step)), Axis(axis_label(curves.kl))
        rows.append(
            tuple(
                Panel(f"prompt {sequence}", x, y, (*_lines(curves.sel(sequence=sequence)), threshold_rule()))
                for sequence in curves.sequence.values
            )
        )
    return Chart(tuple(rows))


def _lines(curves: xr.Dataset) -> list[Line]:
    """All directions from one prompt, thin, and the mean of each kind."""
    thin, means = [], []
    for kind in (RANDOM, REAL):
        values = curves.kl.sel(direction=_of_kind(curves, kind)).transpose("direction", "step").to_numpy()
        thin += [Line(kind, curves.step.values, value, style(kind), thin=True) for value in values]
        means.append(Line(kind, curves.step.values, values.mean(axis=0), style(kind)))
    return thin + means


def _finding(results: Results) -> str:
    """How well the crossings separate the two kinds of direction, prompt by prompt."""
    found = {mode: _separation(results[f"{mode}-draws"]) for mode in ("straight", "sphere")}
    parts = [f"{mode} {', '.join(f'{auc:.2f}' for auc in aucs)}" for mode, aucs in found.items()]
    return (
        f"Area under the ROC curve for crossings of KL {THRESHOLD:g}, real before random directions, prompt by "
        f"prompt: {'; '.join(parts)}."
    )


def _separation(curves: xr.Dataset) -> list[float]:
    """The area under the ROC curve of each prompt."""
    real, random = (
        np.stack([crossings(curves, name).value_or_inf for name in _of_kind(curves, kind)]) for kind in (REAL, RANDOM)
    )
    return [separation_auc(real[:, number], random[:, number]) for number in range(curves.sizes["sequence"])]


def _of_kind(curves: xr.Dataset, kind: str) -> list[str]:
    """The draws of a direction."""
    return [str(name) for name in curves.direction.values if DirectionName.parse(str(name)).kind == kind]


ONE_PROMPT = PaperFigure(
    title=f"{TITLE}, section 2: all directions from one prompt",
    caption=f"KL(clean ‖ perturbed) along {DRAWS} directions toward other real activations and {DRAWS} toward samples "
    "with their mean and covariance, from one prompt per panel. Thick: mean of the directions.",
    claimed=f"{SENSITIVE} Other prompts look qualitatively similar.",
    needs=("straight-draws", "sphere-draws"),
    chart=_chart,
    finding=_finding,
)
