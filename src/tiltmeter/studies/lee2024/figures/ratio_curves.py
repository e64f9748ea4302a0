"""Curves relative to isotropic directions: the ratio of means at each length, paired by sequence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from tiltmeter.analysis.estimates import Estimate, estimate
from tiltmeter.reports.charts.chart import Axis, Line, Panel, Rule
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.estimands import ratio, read, step_index
from tiltmeter.studies.results import Results

ISOTROPIC = "isotropic"
"""What curves are divided by."""

AT_ONE = Rule(1.0, "y", style=style(ISOTROPIC)._replace(linestyle=(0.0, (3.0, 2.0))))
"""Where a direction is as isotropic ones."""


def relative_panel(results: Results, experiment: str, readout: str, panel: Panel, directions: dict[str, str]) -> Panel:
    """The ratio of each curve of a panel to that along isotropic directions, on a logarithmic axis with a line at 1.

    Args:
        results: of the study.
        experiment: whose curves the panel shows.
        readout: the name of the readout in its dataset.
        panel: mean curves.
        directions: the direction of each curve, by the curve's name.
    """
    marks = [
        _relative(results, experiment, readout, mark, directions[mark.name])
        for mark in panel.marks
        if isinstance(mark, Line) and directions[mark.name] != ISOTROPIC
    ]
    return replace(panel, y=ratio_axis(readout), marks=(*marks, AT_ONE))


def ratio_axis(readout: str) -> Axis:
    """The axis of ratios of a readout."""
    what = "KL" if readout == "kl" else "L2 after the last block"
    return Axis(f"{what} ÷ that of isotropic directions", log=True)


def ratio_to_isotropic(results: Results, experiment: str, readout: str, direction: str, step: float) -> Estimate:
    """Mean of a readout along a direction ÷ along isotropic ones at a measured step, paired by sequence."""

    def measured() -> Estimate:
        at = step_index(results[experiment], step)
        one, other = (_all_steps(results, experiment, readout, name)[:, at] for name in (direction, ISOTROPIC))
        return estimate(results.with_documents(ratio("", one, other)), 1)

    return results.once(f"{experiment} {readout} {direction} relative at {step!r}", measured)


def _all_steps(results: Results, experiment: str, readout: str, direction: str) -> Float[np.ndarray, "sequence step"]:
    return results.once(f"{experiment} {readout} {direction}", lambda: read(results[experiment], readout, direction))


def _relative(results: Results, experiment: str, readout: str, line: Line, direction: str) -> Line:
    """The same curve ÷ the isotropic one, without length 0, where nothing has changed."""
    steps = line.x[line.x > 0]
    found = [ratio_to_isotropic(results, experiment, readout, direction, float(step)) for step in steps]
    y, low, high = (np.array([getattr(one, part) for one in found]) for part in ("value", "low", "high"))
    return replace(line, x=steps, y=y, low=low, high=high)
