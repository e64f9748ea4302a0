"""Phrases that several claims of Lee & Heimersheim 2024 share."""

from __future__ import annotations

from tiltmeter.studies.lee2024.estimands import DECIDING_ANGLES, LONG, MIDDLE, SHORT
from tiltmeter.studies.lee2024.estimands_saes import Lengths

MARGIN = "Our margin: the paper has no number."
LENGTHS_CHOSEN = (
    f"Decided at the paper's lengths {SHORT:g}, {MIDDLE:g} and {LONG:g}; measured at all of its lengths, and qualified "
    "where the others differ."
)
CONSTANT_NORM = (
    "The paper says that differences may primarily reflect the subtraction of the original activation. On a straight "
    "line a difference shortens x and a mixture lengthens it; on the sphere, x(θ) = ‖x‖ (cos θ x̂ + sin θ û), both "
    "leave cos θ of x, and only û differs. Decided at "
    f"{', '.join(f'{angle:g}' for angle in DECIDING_ANGLES)} degrees, near chords of the paper's lengths where x has "
    "the norm of the pair distance; measured up to 90."
)
ORDER = (
    "Tested: the fraction of pairs of SAEs, within one family, of which the sparser has the stronger effect in a "
    "sequence, which is (1 + Kendall's τ) / 2."
)
BARS = Lengths((21.0, 41.0, 61.0))
"""The lengths of the paper's bars."""
WORK = "Lee & Heimersheim 2024"
PAPER, FORUM = f"{WORK}, arXiv 2410.12555", f"{WORK}, LessWrong"
CODE = "mean KL printed by the authors' code (error_extrapolation.ipynb), layer 6"

ANALOGOUS = "The post shows the plot for L2 without saying more of it; its words about KL are tested."
