"""Phrases that the captions and findings of several figures share."""

from __future__ import annotations

from collections.abc import Sequence

from tiltmeter.analysis.estimates import MIN_SEQUENCES, Estimand, Estimate, estimate
from tiltmeter.studies.results import Results

TITLE = "Gurnee 2024"
ALL_TOKENS = "Every token of a sequence is replaced, one layer at a time; the last position is excluded."
PAIR = "SAE(x) (`sae-error`) or a random point at the same distance from x (`epsilon-random`)"
WHISKERS = "Whiskers: 95 % intervals over sequences."
BANDS = "Bands: 95 % intervals over sequences."
SUBSTITUTES = (
    "Substitutes for x: SAE(x) (`sae-error`); SAE(x) scaled to the norm of x (`sae-norm-corrected`); a random point at "
    "the same distance from x (`epsilon-random`); random points at the angle of SAE(x) with its norm or with that of x "
    "(`theta-random`); and x scaled to the norm of SAE(x) (`sae-cos-corrected`)."
)
GAP = "The KL gap of a token is the KL of SAE(x) minus that of a random point at the same distance from x."
INTERVALS = "In brackets: 95 % intervals over sequences."

KL = "KL(clean ‖ perturbed), nats"
"""Label of an axis."""

COLUMNS = 3
"""Panels per row."""


def alone(results: Results, estimand: Estimand) -> Estimate:
    """An estimate with the interval of a single number, not corrected for others."""
    return estimate(results.with_documents(estimand), 1)


def range_over_layers(what: str, results: Results, estimands: Sequence[Estimand]) -> str:
    """`What: 1.2 [1.1, 1.3] (layer 3) to 2.0 [1.9, 2.1] (layer 0)`, and how many intervals lie above and below 1."""
    found = [one for one in (alone(results, each) for each in estimands) if one.value == one.value]
    if not found:
        return f"{what} is not defined here."
    what_counts = "sequences" if found[0].documents is None else "documents"
    few = f"; {found[0].independent} {what_counts} are too few to say more"
    few = few if found[0].independent < MIN_SEQUENCES else ""
    if len(found) == 1:
        return f"{what}: {found[0]} ({_layer(found[0])}){few}."
    low, high = (pick(found, key=lambda one: one.value) for pick in (min, max))
    above, below = sum(one.low > 1 for one in found), sum(one.high < 1 for one in found)
    counts = f"; the interval is above 1 in {above} and below 1 in {below} of {len(found)} layers"
    return f"{what}: {low} ({_layer(low)}) to {high} ({_layer(high)}){few or counts}."


def _layer(found: Estimate) -> str:
    return found.label.partition(":")[0]
