"""Under which headings the report has the claims of Gurnee 2024, and which it says first."""

from __future__ import annotations

from tiltmeter.studies.study import Topic

TOPICS: tuple[Topic, ...] = (
    Topic(
        "SAE reconstructions and random points at the same distance",
        (
            "2",
            "3",
            "4",
        ),
        (
            "sae-above-epsilon-random",
            "kl-ratio-as-published",
            "loss-above-epsilon-random",
            "loss-ratio-as-published",
            "whole-distribution-shifted",
        ),
    ),
    Topic(
        "Norm, angle and chance",
        (
            "2",
            "3",
            "8",
        ),
        (
            "norm-corrected-similar",
            "not-shrinkage",
            "three-clusters",
            "random-points-alike",
            "norm-change-smallest",
        ),
    ),
    Topic(
        "One token replaced",
        (
            "6",
            "7",
        ),
        (
            "single-token-gap",
            "next-token-gap",
            "gap-persists",
            "gap-persists-more-in-early-layers",
            "single-token-smaller",
        ),
    ),
    Topic(
        "When the gap is large",
        (
            "9",
            "10",
            "11",
            "5",
            "8",
        ),
        (
            "gap-varies",
            "gap-with-position",
            "gap-grows-with-angle",
            "gap-hardly-with-l0",
            "l0-with-cosine",
            "top-tokens-vary",
            "gap-not-with-frequency",
            "gap-most-with-other-layers",
        ),
    ),
    Topic(
        "SAEs on the heads' outputs",
        ("12",),
        (
            "attention-ratio-as-published",
            "attention-gap-smaller",
            "attention-norm-matters-more",
        ),
    ),
    Topic(
        "Good and bad reconstructions",
        ("riggs",),
        (
            "sae-worse-at-high-cosine",
            "sae-better-at-low-cosine",
        ),
    ),
)

HEADLINES = (
    "sae-above-epsilon-random",
    "kl-ratio-as-published",
    "not-shrinkage",
    "gap-grows-with-angle",
    "attention-gap-smaller",
)
