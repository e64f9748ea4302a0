"""What is measured for the figures and claims of Gurnee 2024."""

from __future__ import annotations

from typing import Any, NamedTuple

from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.sites import Site
from tiltmeter.perturb.names import draws
from tiltmeter.perturb.paths import Path, Sphere, Substitute
from tiltmeter.studies.predictions import Predictions
from tiltmeter.studies.results import NotMeasured
from tiltmeter.studies.study import Experiment, KnownSAE, Size, Subject, SweepExperiment
from tiltmeter.studies.token_facts import TokenFacts
from tiltmeter.sweeps.plan import Sweep

INTERVENTIONS = (
    "sae-error",
    "sae-norm-corrected",
    "epsilon-random",
    "theta-random-sae-norm",
    "theta-random-true-norm",
    "sae-cos-corrected",
)
"""What replaces an activation: SAE(x), and points that share its error, its angle or its norm."""

ABLATIONS = ("zero", "mean")
"""Further replacements in the published code; their KL is far above the others'."""

TOKEN, AFTER = 32, 16
"""The one token that is replaced, and how many tokens after it are read."""

DRAWN_TOKEN = 48
"""The token at which many random points are drawn."""

DEGREES = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0)
"""Angles between x and random points, for KL against cosine."""

SHORTEST = DRAWN_TOKEN + 1
"""The fewest tokens of a sequence."""

BOS = BosPolicy(statistics="out", perturbation="in", average="in")
"""The paper replaces and averages every position, including the first."""


class Scale(NamedTuple):
    """How much is measured."""

    layers: int
    """Sequences with every token replaced."""
    single: int
    """Sequences with one token replaced."""
    tokens: int
    """Tokens with many random points each, one token per sequence."""
    draws: int
    """Random points per token."""
    saes: int
    """Sequences on which the SAEs of one layer are compared."""
    statistics: int


SCALES: dict[Size, Scale] = {
    "quick": Scale(layers=24, single=32, tokens=48, draws=12, saes=24, statistics=96),
    "default": Scale(layers=64, single=256, tokens=256, draws=48, saes=24, statistics=256),
    "paper": Scale(layers=16_000, single=16_000, tokens=512, draws=500, saes=2_000, statistics=16_000),
}

MOST_SAES: dict[Size, int] = {"quick": 4, "default": 12, "paper": 100}
"""The most SAEs of one layer that are compared."""


def experiments(subject: Subject, size: Size) -> dict[str, Experiment | NotMeasured]:
    """The paper's experiments on a subject.

    Departures from the published code: each token of each sequence has its own random numbers, the same in all
    interventions of one kind; `mean` is over many sequences, not over the batch.
    """
    if (context := subject.loaded.model.context) < SHORTEST:
        return {
            "layers": NotMeasured(f"The paper's sequences have {SHORTEST} tokens or more; this model reads {context}.")
        }
    scale, site = SCALES[size], Site(subject.layer, "resid_pre")
    layers = range(subject.n_layers)
    stream = {layer: _local(subject, Site(layer, "resid_pre")) for layer in layers}
    heads = {layer: _local(subject, Site(layer, "z")) for layer in layers}
    at = stream[subject.layer]
    return {
        **{f"layers-{layer}": _all_tokens(subject, sae, scale) for layer, sae in stream.items()},
        **{f"tokens-{layer}": _facts(sae, scale) for layer, sae in stream.items()},
        **{f"single-{layer}": _one_token(subject, sae, scale) for layer, sae in stream.items()},
        "draws": _draws(subject, at, scale),
        **{f"attention-{layer}": _all_tokens(subject, sae, scale) for layer, sae in heads.items()},
        "predictions": _predictions(subject, at),
        "saes": _saes(subject, site, scale, MOST_SAES[size]),
        "cosine": _cosine(subject, site, scale),
    }


def _local(subject: Subject, site: Site) -> KnownSAE | NotMeasured:
    """The SAE at a site with the L0 nearest to that of the SAE at the study's layer."""
    middle = subject.local_at(Site(subject.layer, "resid_pre"))
    found = subject.local_at(site, middle and middle.l0)
    return found or NotMeasured(f"No SAE at {site.name} was given that was trained to reconstruct.")


def _all_tokens(subject: Subject, sae: KnownSAE | NotMeasured, scale: Scale) -> SweepExperiment | NotMeasured:
    """Every token replaced; values of each position are kept."""
    if isinstance(sae, NotMeasured):
        return sae
    return _sweep(
        subject,
        sae.site,
        scale,
        directions=(*INTERVENTIONS, *ABLATIONS),
        saes=(sae.name,),
        readouts=("kl", "loss", f"cos@{sae.site.name}"),
        sequences=scale.layers,
        keep_positions=True,
    )


def _facts(sae: KnownSAE | NotMeasured, scale: Scale) -> TokenFacts | NotMeasured:
    return sae if isinstance(sae, NotMeasured) else TokenFacts(sae.site.name, (sae.name,), scale.layers)


def _one_token(subject: Subject, sae: KnownSAE | NotMeasured, scale: Scale) -> SweepExperiment | NotMeasured:
    """One token replaced; that token and those after it are read."""
    if isinstance(sae, NotMeasured):
        return sae
    return _sweep(
        subject,
        sae.site,
        scale,
        directions=INTERVENTIONS,
        saes=(sae.name,),
        positions=f"{TOKEN}+{AFTER}",
        sequences=scale.single,
        keep_positions=True,
    )


def _draws(subject: Subject, sae: KnownSAE | NotMeasured, scale: Scale) -> SweepExperiment | NotMeasured:
    """Many random points for one token of each sequence."""
    if isinstance(sae, NotMeasured):
        return sae
    return _sweep(
        subject,
        sae.site,
        scale,
        directions=("sae-error", *draws("epsilon-random", scale.draws)),
        saes=(sae.name,),
        positions=str(DRAWN_TOKEN),
        sequences=scale.tokens,
        shard=64,
    )


def _predictions(subject: Subject, sae: KnownSAE | NotMeasured) -> Predictions | NotMeasured:
    """Predictions on the sequences of the published code."""
    if isinstance(sae, NotMeasured):
        return sae
    return Predictions(sae.site.name, (sae.name,), cases=(1, 2, 16), position=TOKEN, seed=subject.seed)


def _saes(subject: Subject, site: Site, scale: Scale, most: int) -> SweepExperiment | NotMeasured:
    """SAEs of one layer, and random points at their angles; those trained to reconstruct come before the others."""
    found = subject.saes_at(site)
    chosen = sorted(found, key=lambda sae: not sae.is_local)[:most]
    if not chosen:
        return NotMeasured(f"No SAE at {site.name} was given.")
    return _sweep(
        subject,
        site,
        scale,
        directions=("sae-error", "sae-norm-corrected", "theta-random-true-norm"),
        saes=tuple(sae.name for sae in found if sae in chosen),
        readouts=("kl", f"cos@{site.name}"),
        sequences=scale.saes,
    )


def _cosine(subject: Subject, site: Site, scale: Scale) -> SweepExperiment:
    """Random points with the norm of x, at increasing angles."""
    return _sweep(subject, site, scale, directions=("isotropic",), path=Sphere(degrees=DEGREES), sequences=scale.saes)


def _sweep(subject: Subject, site: Site, scale: Scale, path: Path | None = None, **more: Any) -> SweepExperiment:
    return SweepExperiment(
        Sweep(
            site=site.name,
            path=path or Substitute(),
            bos=BOS,
            statistics_sequences=scale.statistics,
            seed=subject.seed,
            **{"readouts": ("kl",), **more},
        )
    )
