"""Under which headings the report has the claims of Lee & Heimersheim 2024, and which it says first."""

from __future__ import annotations

from tiltmeter.studies.study import Topic

TOPICS: tuple[Topic, ...] = (
    Topic(
        "Differences and mixtures",
        (
            "1",
            "L2-1",
            "larger",
            "constant-norm",
        ),
        (
            "cov-random-difference-above-mixture",
            "real-difference-above-mixture",
            "difference-above-mixture-in-l2",
            "cov-random-difference-not-above-mixture-at-constant-norm",
            "real-difference-not-above-mixture-at-constant-norm",
            "late-distance-linear-at-first",
        ),
    ),
    Topic(
        "Random and real directions",
        (
            "2",
            "L2-2",
        ),
        (
            "cov-random-mixture-above-isotropic",
            "cov-random-mixture-above-isotropic-in-l2",
            "real-difference-above-cov-random-difference",
            "real-difference-above-cov-random-difference-in-l2",
            "real-mixture-above-cov-random-mixture",
            "real-mixture-near-cov-random-mixture",
            "real-mixture-near-cov-random-mixture-in-l2",
        ),
    ),
    Topic(
        "Single tokens",
        ("shapes",),
        ("single-curves-mixtures-above-isotropic",),
    ),
    Topic(
        "An early layer",
        (
            "S1",
            "S2",
        ),
        (
            "early-cov-random-difference-above-mixture",
            "early-real-difference-above-mixture",
            "early-late-distance-gap-smaller",
            "early-late-distance-gap-minimal",
            "early-cov-random-mixture-above-isotropic",
            "early-real-mixture-near-cov-random-mixture",
            "early-real-mixture-near-cov-random-mixture-in-l2",
        ),
    ),
    Topic(
        "Activations replaced by SAE reconstructions",
        (
            "3",
            "4",
            "S3",
        ),
        (
            "substitution-isotropic-smallest",
            "substitution-real-above-cov-random",
            "substitution-sae-nearer-to-mixtures",
            "substitution-isotropic-below-sae",
            "substitution-sae-varies-by-layer",
            "substitution-sae-near-cov-random",
            "end-to-end-farther-with-lower-kl",
            "saes-isotropic-much-smaller",
            "saes-others-similar",
        ),
    ),
    Topic(
        "SAE errors as directions",
        (
            "5",
            "6",
            "L2-5",
            "L2-6",
        ),
        (
            "errors-plateau",
            "errors-linear-after-plateau",
            "errors-local-sparser-stronger",
            "errors-local-near-cov-random",
            "errors-end-to-end-low-at-first",
            "errors-end-to-end-spike",
            "errors-end-to-end-sparser-stronger-far",
            "errors-end-to-end-sparser-weaker-near",
            "errors-local-sparser-stronger-in-l2",
            "errors-local-near-cov-random-in-l2",
            "errors-end-to-end-low-at-first-in-l2",
            "errors-end-to-end-sparser-stronger-far-in-l2",
            "errors-end-to-end-sparser-weaker-near-in-l2",
        ),
    ),
    Topic(
        "SAE features as directions",
        (
            "7",
            "8",
            "L2-7",
            "L2-8",
        ),
        (
            "features-above-isotropic",
            "features-vary-about-cov-random",
            "features-sparser-stronger",
            "features-local-above-downstream-near",
            "features-local-downstream-gap-shrinks",
            "features-e2e-below-downstream",
            "features-e2e-below-local",
            "features-e2e-more-isotropic",
            "features-local-greatest",
            "features-local-greatest-in-l2",
            "features-above-isotropic-in-l2",
            "features-sparser-stronger-in-l2",
        ),
    ),
)

HEADLINES = (
    "real-difference-above-mixture",
    "cov-random-mixture-above-isotropic",
    "substitution-sae-near-cov-random",
    "errors-local-near-cov-random",
    "features-e2e-below-local",
)
