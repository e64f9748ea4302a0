"""The figures of Lee & Heimersheim 2024: the paper's, their versions in L2, the supplement's, and two of our own."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.lee2024.figures import (
    direction_curves,
    feature_dots,
    reconstruction_error,
    sae_curves,
    single_curves,
    substitution,
)
from tiltmeter.studies.study import PaperFigure

FIGURES: Mapping[str, PaperFigure] = {
    "1": direction_curves.FIGURE_1,
    "2": direction_curves.FIGURE_2,
    "3": substitution.FIGURE_3,
    "4": substitution.FIGURE_4,
    "5": sae_curves.FIGURE_5,
    "6": sae_curves.FIGURE_6,
    "7": sae_curves.FIGURE_7,
    "8": feature_dots.FIGURE_8,
    "L2-1": direction_curves.FIGURE_1_L2,
    "L2-2": direction_curves.FIGURE_2_L2,
    "L2-5": sae_curves.FIGURE_5_L2,
    "L2-6": sae_curves.FIGURE_6_L2,
    "L2-7": sae_curves.FIGURE_7_L2,
    "L2-8": feature_dots.FIGURE_8_L2,
    "S1": direction_curves.FIGURE_S1,
    "S2": direction_curves.FIGURE_S2,
    "S3": reconstruction_error.FIGURE_S3,
    "larger": direction_curves.LARGER,
    "constant-norm": direction_curves.CONSTANT_NORM,
    "shapes": single_curves.SHAPES,
}
