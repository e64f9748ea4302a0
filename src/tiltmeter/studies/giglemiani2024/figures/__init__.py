"""The figures of Giglemiani et al. 2024, in the paper's order, and then those of the authors' notebooks."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.giglemiani2024.figures import distances, example_curves, step_distributions
from tiltmeter.studies.study import PaperFigure

FIGURES: Mapping[str, PaperFigure] = {
    "1": example_curves.FIGURE_1,
    "2": step_distributions.FIGURE_2,
    "3": step_distributions.FIGURE_3,
    "A.1": step_distributions.FIGURE_A1,
    "B.1": step_distributions.FIGURE_B1,
    "NL": step_distributions.NONLINEARITY,
    "KL-MS": step_distributions.MAX_SLOPE_OF_KL,
    "KS": distances.KS_DISTANCES,
}
