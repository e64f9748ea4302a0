"""The quantities that the claims of Gurnee 2024 are about: interventions by layer, at all tokens or at one."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tiltmeter.analysis.estimates import ABOVE_ONE, ABOVE_ZERO, Estimand, Region, Rows
from tiltmeter.studies.estimands import Quantities, difference, of_columns, ratio
from tiltmeter.studies.gurnee2024.per_token import gap, layers, loss_increase, mean_kl, mean_of, per_token
from tiltmeter.studies.results import NotMeasured, Results

RANDOM = ("epsilon-random", "theta-random-sae-norm", "theta-random-true-norm")
"""The three random points: at SAE(x)'s distance, or at its angle."""

SIMILAR = Region(0.8, 1.25)
"""The margin of "nearly the same": a ratio of means within a quarter."""

PARTS = (0.1, 0.5, 0.9)
"""Quantiles that stand for the whole distribution."""


def in_each_layer(one: str, other: str, region: Region = ABOVE_ONE, experiment: str = "layers") -> Quantities:
    """KL of one intervention ÷ that of another, in each layer."""

    def estimands(results: Results) -> list[Estimand]:
        return [
            ratio(f"layer {layer}: KL of {one} ÷ {other}", mean_kl(curves, one), mean_kl(curves, other), region)
            for layer, curves in results.by_layer(experiment).items()
        ]

    return estimands


def together(*claims: Quantities) -> Quantities:
    """Several claims as one."""
    return lambda results: [quantity for one in claims for quantity in one(results)]


def clusters(results: Results) -> list[Estimand]:
    """SAE(x) and the norm-corrected one, each ÷ each of the random points, in each layer."""
    return [
        ratio(f"layer {layer}: KL of {own} ÷ {random}", mean_kl(curves, own), mean_kl(curves, random))
        for layer, curves in results.by_layer("layers").items()
        for own in ("sae-error", "sae-norm-corrected")
        for random in RANDOM
    ]


def losses(results: Results) -> list[Estimand]:
    """Loss with SAE(x) less that with the random point, in each layer."""
    return [
        difference(
            f"layer {layer}: loss with SAE(x) - with epsilon-random",
            mean_of(per_token(curves, "sae-error", "loss")),
            mean_of(per_token(curves, "epsilon-random", "loss")),
            unit=" nats",
        )
        for layer, curves in results.by_layer("layers").items()
    ]


def loss_ratios(results: Results) -> list[Estimand]:
    """Increase of the loss with SAE(x) ÷ that with the random point; undefined where the latter is none."""
    return [
        of_columns(
            f"layer {layer}: loss increase of SAE(x) ÷ epsilon-random",
            [mean_of(loss_increase(one, kind)) for kind in ("sae-error", "epsilon-random")],
            _ratio_of_increases,
            Region(2.0, 4.0),
            "ratio",
        )
        for layer, one in layers(results).items()
    ]


def _ratio_of_increases(rows: Rows) -> float:
    own, random = np.nanmean(rows, axis=0)
    return float(own / random) if random > 0 else float("nan")


def quantiles(results: Results) -> list[Estimand]:
    """Quantiles over tokens of SAE(x)'s KL ÷ the same of the random point's, in each layer."""
    return [
        of_columns(
            f"layer {layer}: {part:.0%} quantile of KL, SAE(x) ÷ epsilon-random",
            [per_token(curves, kind) for kind in ("sae-error", "epsilon-random")],
            _quantile_ratio(part),
            ABOVE_ONE,
            "ratio",
        )
        for layer, curves in results.by_layer("layers").items()
        for part in PARTS
    ]


def _quantile_ratio(part: float) -> Callable[[Rows], float]:
    def statistic(rows: Rows) -> float:
        pairs = rows.reshape(-1, 2)
        own, random = np.quantile(pairs[~np.isnan(pairs).any(1)], part, axis=0)
        return float(own / random)

    return statistic


def at_offsets(what: str, offsets: slice, region: Region) -> Quantities:
    """KL of SAE(x) ÷ the random point where one token is replaced, read some tokens after it, in each layer."""

    def estimands(results: Results) -> list[Estimand]:
        return [
            ratio(
                f"layer {layer}: KL of SAE(x) ÷ epsilon-random at {what}",
                mean_of(per_token(curves, "sae-error")[:, offsets]),
                mean_of(per_token(curves, "epsilon-random")[:, offsets]),
                region,
            )
            for layer, curves in results.by_layer("single").items()
        ]

    return estimands


def but_the_last_layer(claim: Quantities) -> Quantities:
    """The same without the last layer."""

    def estimands(results: Results) -> list[Estimand]:
        measured = list(results.by_layer("single"))
        last = max(int(name.rpartition("-")[2]) for name in _single_layers(results))
        found = [one for layer, one in zip(measured, claim(results), strict=True) if layer != last]
        if not found:
            raise NotMeasured("Only the last layer was measured, and this is about the others.")
        return found

    return estimands


def _single_layers(results: Results) -> list[str]:
    """Every layer that the model has, whether it was measured or not."""
    return [name for name in (*results.found, *results.missing) if re.fullmatch(r"single-\d+", name)]


def early_persists(results: Results) -> list[Estimand]:
    """How much of the gap at the token is left after it, in the first layer less in the last."""
    measured = list(results.by_layer("single").items())
    if len(measured) < 2:
        raise NotMeasured("Only one layer was measured; this compares the first with the last.")
    (first, early), (last, late) = measured[0], measured[-1]
    columns = [part for curves in (early, late) for part in (gap(curves)[:, 0], mean_of(gap(curves)[:, 1:]))]

    def left(rows: Rows) -> float:
        a, after_a, b, after_b = np.nanmean(rows, axis=0)
        return float(after_a / a - after_b / b)

    what = f"mean gap at the 16 tokens after ÷ gap at the token: layer {first} - layer {last}"
    return [of_columns(what, columns, left, ABOVE_ZERO)]


def smaller_alone(results: Results) -> list[Estimand]:
    """KL at the token where it alone is replaced ÷ where all are, over the same sequences, in each layer."""
    every = results.by_layer("layers")
    found = []
    for layer, alone in results.by_layer("single").items():
        if layer not in every:
            continue
        token = int(alone.position[0])
        for kind in ("sae-error", "epsilon-random"):
            pair = [per_token(alone, kind)[:, 0], per_token(every[layer], kind)[:, token]]
            n = min(map(len, pair))
            what = f"layer {layer}: KL of {kind} at token {token}, it alone ÷ all tokens replaced"
            found.append(ratio(what, pair[0][:n], pair[1][:n], Region(-np.inf, 1.0)))
    return found
