"""Phrases that several claims of Lee & Heimersheim 2024 share."""

from __future__ import annotations

from tiltmeter.studies.lee2024.estimands import LONG, MIDDLE, SHORT
from tiltmeter.studies.lee2024.estimands_saes import Lengths

MARGIN = "Our margin: the paper has no number."
LENGTHS_CHOSEN = (
    f"Decided at the paper's lengths {SHORT:g}, {MIDDLE:g} and {LONG:g}; measured at all of its lengths, and qualified "
    "where the others differ."
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
