"""What is measured for the figures and claims of Lee & Heimersheim 2024."""

from __future__ import annotations

from typing import Any, NamedTuple

from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.sites import Site
from tiltmeter.perturb.paths import Sphere, Substitute
from tiltmeter.studies.decoder_facts import DecoderFacts
from tiltmeter.studies.lengths import straight
from tiltmeter.studies.results import NotMeasured
from tiltmeter.studies.study import Experiment, KnownSAE, Size, Subject, SweepExperiment
from tiltmeter.sweeps.plan import Sweep

PAIR_DISTANCE = 81.59
"""Mean L2 distance of two activations of GPT-2 small at `blocks.6.hook_resid_pre`, as the paper states it."""

LENGTHS = (0.0, 1.0, *(float(length) for length in range(11, 102, 10)))
"""The paper's lengths: 0, and the grid of its code up to the 101 of its figures."""

DIRECTIONS = (
    "isotropic",
    "isotropic-difference",
    "cov-random-difference",
    "cov-random-mixture",
    "real-difference",
    "real-mixture",
)
"""The paper's directions that need no SAE."""

BASELINES = ("isotropic", "cov-random-mixture", "real-mixture")
"""What the paper compares directions of SAEs with."""

SUBSTITUTIONS = ("sae-error", "epsilon-random", "epsilon-cov-random-mixture", "epsilon-real-mixture")
"""What is put in the place of an activation: SAE(x), and three points as far away."""

DIFFERENCES_AND_MIXTURES = ("cov-random-difference", "cov-random-mixture", "real-difference", "real-mixture")

DEGREES = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0)
"""Angles at constant norm. Where x has the norm of the pair distance, chords of the paper's lengths 21, 51 and 81 are
at 15, 36 and 60 degrees."""

EARLY = 2 / 12
"""The layer of the supplement, as a fraction of the depth."""

BOS = BosPolicy(statistics="out", perturbation="in", average="in")
"""The paper perturbs every position, and does not say whether the boundary one entered its means and covariance; its
81.59 suggests that it did not."""


class Scale(NamedTuple):
    """How many sequences are measured."""

    baselines: int
    saes: int
    """Where every SAE is measured."""
    layers: int
    larger: int
    """Of the rerun with more tokens."""
    shapes: int
    """Where every token is kept apart."""
    statistics: int


SCALES: dict[Size, Scale] = {
    "quick": Scale(baselines=24, saes=24, layers=24, larger=48, shapes=24, statistics=256),
    "default": Scale(baselines=96, saes=40, layers=64, larger=192, shapes=24, statistics=512),
    "paper": Scale(baselines=16_000, saes=16_000, layers=16_000, larger=117_188, shapes=256, statistics=16_000),
}


def experiments(subject: Subject, size: Size) -> dict[str, Experiment | NotMeasured]:
    """The paper's experiments on a subject.

    Departures from the published code, which follow the text: every token has a direction of its own, the same at all
    lengths (the code draws one for a batch, anew at each length); and the last position counts (the code drops it).
    """
    scale, site = SCALES[size], Site(subject.layer, "resid_pre")
    return {
        "directions": _along(subject, site, DIRECTIONS, scale.baselines, scale),
        "directions-early": _early(subject, scale),
        "directions-sphere": _at_constant_norm(subject, site, scale),
        "directions-larger": _along(subject, site, DIRECTIONS, scale.larger, scale, LENGTHS[::2]),
        "errors": _of_saes(subject, site, "sae-error", scale),
        "features": _of_saes(subject, site, "sae-feature", scale),
        "reconstructions": _substitution(subject, site, subject.saes_at(site), scale.saes, scale),
        **{f"layers-{layer}": _layer(subject, layer, scale) for layer in range(subject.n_layers)},
        "decoders": _decoders(subject, site, scale),
        "shapes": _shapes(subject, site, scale),
    }


def _early(subject: Subject, scale: Scale) -> SweepExperiment | NotMeasured:
    layer = max(1, round(EARLY * subject.n_layers))
    if layer >= subject.layer:
        return NotMeasured(f"The early layer, {layer}, does not come before layer {subject.layer}, which is studied.")
    return _along(subject, Site(layer, "resid_pre"), (*DIFFERENCES_AND_MIXTURES, "isotropic"), scale.baselines, scale)


def _along(
    subject: Subject,
    site: Site,
    directions: tuple[str, ...],
    sequences: int,
    scale: Scale,
    lengths: tuple[float, ...] = LENGTHS,
    **more: Any,
) -> SweepExperiment:
    return SweepExperiment(
        Sweep(
            site=site.name,
            directions=directions,
            path=straight(lengths, PAIR_DISTANCE, subject.lengths),
            readouts=("kl", f"l2@{subject.last.name}"),
            bos=BOS,
            sequences=sequences,
            statistics_sequences=scale.statistics,
            seed=subject.seed,
            **more,
        )
    )


def _at_constant_norm(subject: Subject, site: Site, scale: Scale) -> SweepExperiment:
    """Differences and mixtures rescaled to the norm of x: both take as much of x away."""
    return SweepExperiment(
        Sweep(
            site=site.name,
            directions=DIFFERENCES_AND_MIXTURES,
            path=Sphere(degrees=DEGREES),
            readouts=("kl",),
            bos=BOS,
            sequences=scale.baselines,
            statistics_sequences=scale.statistics,
            seed=subject.seed,
        )
    )


def _of_saes(subject: Subject, site: Site, direction: str, scale: Scale) -> SweepExperiment | NotMeasured:
    """A direction of every SAE at the site, and the baselines."""
    names = tuple(sae.name for sae in subject.saes_at(site))
    if not names:
        return NotMeasured(f"No SAE at {site.name} was given.")
    return _along(subject, site, (direction, *BASELINES), scale.saes, scale, saes=names)


def _decoders(subject: Subject, site: Site, scale: Scale) -> DecoderFacts | NotMeasured:
    """How isotropic the features of every SAE at the site are."""
    names = tuple(sae.name for sae in subject.saes_at(site))
    if not names:
        return NotMeasured(f"No SAE at {site.name} was given.")
    return DecoderFacts(site.name, names, scale.statistics, subject.seed)


def _layer(subject: Subject, layer: int, scale: Scale) -> SweepExperiment | NotMeasured:
    """Substitution at one layer, with the SAE there that is most like the one at the study's layer."""
    at = subject.local_at(Site(subject.layer, "resid_pre"))
    sae = subject.local_at(site := Site(layer, "resid_pre"), at and at.l0)
    if sae is None:
        return NotMeasured(f"No SAE at {site.name} was given that was trained to reconstruct.")
    return _substitution(subject, site, (sae,), scale.layers, scale)


def _substitution(
    subject: Subject, site: Site, saes: tuple[KnownSAE, ...], sequences: int, scale: Scale
) -> SweepExperiment | NotMeasured:
    if not saes:
        return NotMeasured(f"No SAE at {site.name} was given.")
    return SweepExperiment(
        Sweep(
            site=site.name,
            directions=SUBSTITUTIONS,
            saes=tuple(sae.name for sae in saes),
            path=Substitute(),
            readouts=("kl", "loss", f"l2@{subject.last.name}"),
            bos=BOS,
            sequences=sequences,
            statistics_sequences=scale.statistics,
            seed=subject.seed,
        )
    )


def _shapes(subject: Subject, site: Site, scale: Scale) -> SweepExperiment:
    """Every token's own curve, on a finer grid: means hide the shape, as the paper says of itself."""
    sae = subject.local_at(site, 30.0)
    directions = (*BASELINES, *(("sae-error",) if sae else ()))
    lengths = tuple(float(length) for length in range(0, 101, 4))
    saes = {"saes": (sae.name,)} if sae else {}
    return _along(subject, site, directions, scale.shapes, scale, lengths, keep_positions=True, **saes)
