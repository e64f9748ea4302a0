"""The figures of Gurnee 2024, in the paper's order, and then that of Riggs' comment."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.gurnee2024.figures import (
    by_intervention,
    by_position,
    distributions,
    gap_correlations,
    kl_by_cosine,
    one_token,
    predictions,
    random_draws,
    worst_tokens,
)
from tiltmeter.studies.study import PaperFigure

FIGURES: Mapping[str, PaperFigure] = {
    "1": predictions.FIGURE_1,
    "2": by_intervention.FIGURE_2,
    "3": distributions.FIGURE_3,
    "4": distributions.FIGURE_4,
    "5": by_position.FIGURE_5,
    "6": one_token.FIGURE_6,
    "7": one_token.FIGURE_7,
    "8": random_draws.FIGURE_8,
    "9": gap_correlations.FIGURE_9,
    "10": gap_correlations.FIGURE_10,
    "11": worst_tokens.FIGURE_11,
    "12": by_intervention.FIGURE_12,
    "riggs": kl_by_cosine.RIGGS,
}
