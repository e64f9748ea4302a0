"""What is measured for the figures and claims of Giglemiani et al. 2024."""

from __future__ import annotations

from typing import Any, NamedTuple

from tiltmeter.models.sites import Site
from tiltmeter.perturb.paths import Path, Straight
from tiltmeter.saes.names import short_names
from tiltmeter.studies.lengths import straight
from tiltmeter.studies.results import NotMeasured
from tiltmeter.studies.study import Experiment, KnownSAE, Size, Subject, SweepExperiment
from tiltmeter.sweeps.plan import Sweep

STEPS = 100
"""Steps of each path, as in the paper: 101 points with the start."""

STEP = 0.5
"""L2 length of an absolute step in GPT-2 small."""

PAIR_DISTANCE = 50.0
"""Mean L2 distance of two activations of GPT-2 small at `blocks.1.hook_resid_pre`, about (Heimersheim & Mendel 2024):
a step of 0.5 is a hundredth of it, and where lengths are scaled it is so there."""

ABSOLUTE = tuple(n * STEP for n in range(STEPS + 1))
"""The paper's lengths."""

RELATIVE = Straight(lengths=tuple(n / STEPS for n in range(STEPS + 1)), unit="target")

BASES = ("real", "cov-random", "synthetic-baseline", "synthetic-structured")
"""Where the paths of `plateaus-BASE` begin; synthetic bases need an SAE."""

TARGET = "cov-random-difference"
"""The target of all these paths: a random activation."""

PLAIN_TARGETS = ("real-difference", "cov-random-difference")
SAE_TARGETS = ("synthetic-baseline-difference", "synthetic-structured-difference", "sae-reconstruction-difference")


class Scale(NamedTuple):
    """How many sequences are measured."""

    curves: int
    statistics: int


SCALES: dict[Size, Scale] = {
    "quick": Scale(curves=32, statistics=256),
    "default": Scale(curves=500, statistics=2048),
    "paper": Scale(curves=1000, statistics=16_000),
}
"""The paper has 1,000 curves of each type. It does not say how many its mean and covariance were estimated from; the
published drafts used 700 to 1,500 sequences, too few to estimate a covariance of 768 dimensions well."""


def experiments(subject: Subject, size: Size) -> dict[str, Experiment | NotMeasured]:
    """The paper's experiments on a subject.

    The last step of a relative path is the distance of its target, so `relative` tells where the absolute curves with
    the same sequences, directions and seed pass their targets.

    Departures from the published code, which follow the text: steps of 0.5 (the code has 100 points over a length of
    50, so steps of 50 / 99), and 101 points with the start.
    """
    scale, site = SCALES[size], Site(subject.layer, "resid_pre")
    sae = subject.local_at(site)
    targets = PLAIN_TARGETS + (SAE_TARGETS if sae else ())
    return {
        "absolute": _sweep(subject, site, _absolute(subject), scale, targets, sae),
        "relative": _sweep(subject, site, RELATIVE, scale, targets, sae),
        **{f"plateaus-{base}": _plateaus(subject, site, base, scale, sae) for base in BASES},
    }


def _absolute(subject: Subject) -> Straight:
    return straight(ABSOLUTE, PAIR_DISTANCE, subject.lengths)


def _plateaus(
    subject: Subject, site: Site, base: str, scale: Scale, sae: KnownSAE | None
) -> SweepExperiment | NotMeasured:
    """Paths from a base, transplanted into the sequence, to a random activation."""
    if not base.startswith("synthetic"):
        return _sweep(subject, site, _absolute(subject), scale, (TARGET,), None, base=base)
    if sae is None:
        return NotMeasured(f"No SAE at {site.name} was given that was trained to reconstruct.")
    (label,) = short_names([sae.name])
    return _sweep(subject, site, _absolute(subject), scale, (TARGET,), sae, base=f"{base}:{label}")


def _sweep(
    subject: Subject,
    site: Site,
    path: Path,
    scale: Scale,
    directions: tuple[str, ...],
    sae: KnownSAE | None,
    **more: Any,
) -> SweepExperiment:
    return SweepExperiment(
        Sweep(
            site=site.name,
            directions=directions,
            saes=(sae.name,) if sae else (),
            path=path,
            readouts=(f"l2@{subject.last.name}", "kl"),
            sequences=scale.curves,
            positions="last",
            statistics_positions="perturbed",
            statistics_sequences=scale.statistics,
            seed=subject.seed,
            **more,
        )
    )
