"""Under which headings the report has the claims of Giglemiani et al. 2024, and which it says first."""

from __future__ import annotations

from tiltmeter.studies.study import Topic

TOPICS: tuple[Topic, ...] = (
    Topic(
        "Steps toward real and random activations",
        (
            "1",
            "2",
        ),
        (
            "step-like",
            "real-before-random",
        ),
    ),
    Topic(
        "Synthetic activations, absolute steps",
        (
            "2",
            "KS",
            "B.1",
        ),
        (
            "structured-nearer-than-baseline",
            "baseline-nearer-than-random",
            "means-in-order",
            "structured-closely-resembles-real",
            "reconstruction-like-real",
            "auc-same-order",
        ),
    ),
    Topic(
        "Synthetic activations, relative steps",
        (
            "A.1",
            "B.1",
            "NL",
            "KL-MS",
        ),
        (
            "structured-nearer-than-baseline-relative",
            "baseline-nearer-than-random-relative",
            "relative-gap-smaller",
            "means-in-order-relative",
            "auc-same-order-relative",
            "kl-same-order",
            "nonlinearity-structured-nearest",
        ),
    ),
    Topic(
        "Plateaus around synthetic activations",
        ("3",),
        (
            "plateaus-real-above-random",
            "plateaus-synthetic-less-pronounced",
            "plateaus-structured-like-random",
            "plateaus-baseline-steepest",
        ),
    ),
)

HEADLINES = (
    "step-like",
    "real-before-random",
    "structured-closely-resembles-real",
    "structured-nearer-than-baseline",
    "plateaus-synthetic-less-pronounced",
)
