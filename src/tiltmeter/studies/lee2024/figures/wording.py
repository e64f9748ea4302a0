"""Phrases and lengths that several figures share."""

from __future__ import annotations

TITLE = "Lee & Heimersheim 2024"
SCALED = (
    "Lengths are the paper's, 0 to 101: in its own setting (--preset gpt2) as they are, otherwise times the ratio of "
    "the pair distance here to the paper's 81.59. All positions are perturbed. Bands: 95 % intervals over sequences."
)
RATIO = "Ratios are of means, paired by sequence, on a logarithmic axis; 1: as along isotropic directions."
KL = "Mean KL(clean ‖ perturbed) of the next-token prediction as a function of the perturbation length"
L2 = "Mean L2 distance after the last block as a function of the perturbation length"

LENGTHS = (21.0, 61.0)
"""The paper's lengths that findings report."""
