"""What "more", "much more", "slightly more" and "similar" mean in claims: one margin for all studies.

The papers give no margins. The largest ratio that they call alike is 1.12 (Gurnee 2024, two kinds of random point), the
smallest that they call more is 1.26 (Giglemiani et al. 2024, relative MS steps toward random and real activations). The
margin lies between: ×1.25, either way. So nothing can be both "more" and "similar", and every ratio that is precise
enough is one of them. "Much", "far" and "significantly" mean at least 2: Gurnee 2024 calls 2.2 to 4.5 significantly,
and 0.9 to 1.7 moderately.

Fractions of cases in which one of two comes first have the same margin in their odds. Correlations have one of their
own. So do orders of several things ("the lower its L0, the stronger"): the odds that two of them are in that order.
Superlatives ("the nearest") have no margin: they say which comes first, not by how much.
"""

from __future__ import annotations

import math

from tiltmeter.analysis.estimates import ABOVE_ONE, ABOVE_ZERO, Region

MARGIN = 1.25

MORE, LESS = Region(MARGIN, math.inf), Region(-math.inf, 1 / MARGIN)
SIMILAR = Region(1 / MARGIN, MARGIN)
"""Ratios: "more", "stronger", "larger"; "less", "weaker"; "similar", "minimal", "close", "nearly the same"."""

NOT_MORE = Region(-math.inf, MARGIN)
"""Ratios: similar or less."""

SLIGHTLY_MORE, SLIGHTLY_LESS = Region(1.0, MARGIN), Region(1 / MARGIN, 1.0)

MUCH_MORE, MUCH_LESS = Region(2.0, math.inf), Region(-math.inf, 0.5)
"""Ratios: "much", "far", "significantly"."""

MORE_OFTEN = Region(MARGIN / (1 + MARGIN), math.inf)
LESS_OFTEN = Region(-math.inf, 1 / (1 + MARGIN))
AS_OFTEN = Region(1 / (1 + MARGIN), MARGIN / (1 + MARGIN))
"""The fraction of cases in which one of two is first, or in the claimed order: odds beyond the margin, or within it."""

MANY = Region(0.1, math.inf)
"""The fraction that counts as many."""

CORRELATED, ANTICORRELATED = Region(0.1, math.inf), Region(-math.inf, -0.1)
UNCORRELATED = Region(-0.1, 0.1)
HARDLY_CORRELATED = Region(-0.2, 0.2)
"""Correlations: there is one; there is one, and it is negative; there is none; it is small."""

FIRST, IN_ORDER = ABOVE_ZERO, ABOVE_ONE
"""Orders and superlatives: a difference, or a ratio, to the next."""

OF_CLAIMS = (
    MORE,
    LESS,
    SIMILAR,
    NOT_MORE,
    SLIGHTLY_MORE,
    SLIGHTLY_LESS,
    MUCH_MORE,
    MUCH_LESS,
    MORE_OFTEN,
    LESS_OFTEN,
    AS_OFTEN,
    CORRELATED,
    ANTICORRELATED,
    UNCORRELATED,
    HARDLY_CORRELATED,
    MANY,
)
"""The regions of claims, unless they are among `EXCEPTIONS`."""

EXCEPTIONS: dict[str, str] = {
    "lee2024/errors-plateau": "a KL that grows with the square of the length, less the margin",
    "lee2024/errors-linear-after-plateau": "the same, for the plateau before",
    "lee2024/features-local-greatest": "a superlative",
    "lee2024/features-local-greatest-in-l2": "a superlative",
    "heimersheim2024/random-base-rises-at-once": "a KL that grows with the square of the distance, and the margin",
    "heimersheim2024/real-base-flat-to-40-degrees": "the post's 40 degrees, and what its plots show as no change",
    "heimersheim2024/threshold-tells-directions-apart": "acceptable by Hosmer & Lemeshow (2000)",
    "gurnee2024/kl-ratio-as-published": "the post's numbers",
    "gurnee2024/loss-above-epsilon-random": "a difference that holds the margin: loss increase - margin × the other",
    "gurnee2024/loss-ratio-as-published": "the post's numbers",
    "gurnee2024/attention-norm-matters-more": "a difference that holds the margin: a share - margin × the other",
    "gurnee2024/gap-most-with-other-layers": "a superlative",
    "gurnee2024/attention-ratio-as-published": "the post's numbers",
    "giglemiani2024/step-like": "below and above a straight line",
    "giglemiani2024/structured-nearer-than-baseline": "an order of KS distances",
    "giglemiani2024/baseline-nearer-than-random": "an order of KS distances",
    "giglemiani2024/structured-nearer-than-baseline-relative": "an order of KS distances",
    "giglemiani2024/baseline-nearer-than-random-relative": "an order of KS distances",
    "giglemiani2024/relative-gap-smaller": "an order of KS distances",
    "giglemiani2024/auc-same-order": "an order of KS distances",
    "giglemiani2024/auc-same-order-relative": "an order of KS distances",
    "giglemiani2024/kl-same-order": "an order of KS distances",
    "giglemiani2024/nonlinearity-structured-nearest": "an order of KS distances",
    "giglemiani2024/structured-closely-resembles-real": "a KS distance",
    "giglemiani2024/reconstruction-like-real": "a KS distance",
    "giglemiani2024/plateaus-baseline-steepest": "a superlative",
    "giglemiani2024/means-in-order": "an order of means",
    "giglemiani2024/means-in-order-relative": "an order of means",
}
"""Claims (`STUDY/NAME`) with a region of their own, and where it comes from."""
