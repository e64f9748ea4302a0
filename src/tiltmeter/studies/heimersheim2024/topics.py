"""Under which headings the report has the claims of Heimersheim & Mendel 2024, and which it says first."""

from __future__ import annotations

from tiltmeter.studies.study import Topic

TOPICS: tuple[Topic, ...] = (
    Topic(
        "Activation plateaus",
        (
            "core-1",
            "1-sphere",
            "1-straight",
            "plane",
        ),
        (
            "plateau-short",
            "plateau-medium",
            "plateau-short-l2",
            "plateau-short-cosine",
            "plateau-short-transplanted",
            "random-base-rises-at-once",
            "real-base-flat-to-40-degrees",
        ),
    ),
    Topic(
        "Sensitive directions",
        (
            "core-2",
            "2-sphere",
            "2-straight",
            "one-prompt",
            "2-histogram",
        ),
        (
            "real-direction-stronger",
            "real-direction-earlier-sphere",
            "real-direction-earlier-sphere-relative",
            "real-direction-earlier-straight",
            "real-direction-earlier-straight-relative",
            "real-direction-stronger-l2",
            "real-direction-earlier-l2",
            "threshold-tells-directions-apart",
            "naive-random-less-sensitive",
            "naive-random-much-less-sensitive",
        ),
    ),
    Topic(
        "The last layer",
        ("late-layer",),
        (
            "last-layer-no-order",
            "last-layer-no-order-relative",
            "last-layer-same-angle",
            "last-layer-same-angle-relative",
            "last-layer-gap-smaller",
            "last-layer-gap-smaller-relative",
        ),
    ),
    Topic(
        "Local optima of sensitivity",
        ("3",),
        (
            "real-corner-local-optimum",
            "real-corner-local-optimum-relative",
            "real-corner-stands-out",
            "real-corner-stands-out-relative",
            "random-triangle-symmetric",
            "random-triangle-symmetric-relative",
        ),
    ),
)

HEADLINES = (
    "plateau-short",
    "real-direction-stronger",
    "real-direction-earlier-sphere",
    "naive-random-less-sensitive",
    "real-corner-local-optimum",
)
