"""The figures of Heimersheim & Mendel 2024, in the post's order, and the test of its comment."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.heimersheim2024.figures import (
    crossing_histograms,
    latent_counts,
    mean_curves,
    one_prompt,
    plane_maps,
    triangle_maps,
)
from tiltmeter.studies.study import PaperFigure

FIGURES: Mapping[str, PaperFigure] = {
    "core-1": mean_curves.CORE_1,
    "core-2": mean_curves.CORE_2,
    "plane": plane_maps.PLANE,
    "1-straight": mean_curves.FIGURE_1_STRAIGHT,
    "1-sphere": mean_curves.FIGURE_1_SPHERE,
    "2-straight": mean_curves.FIGURE_2_STRAIGHT,
    "2-sphere": mean_curves.FIGURE_2_SPHERE,
    "one-prompt": one_prompt.ONE_PROMPT,
    "2-histogram": crossing_histograms.FIGURE_2_HISTOGRAM,
    "3": triangle_maps.FIGURE_3,
    "late-layer": mean_curves.LATE_LAYER,
    "latents": latent_counts.LATENTS,
}
