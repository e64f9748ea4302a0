"""The estimands of the claims of Gurnee 2024: one intervention beside another, by layer, at all tokens or at one.

Estimands about the gap of single tokens are in `gap.py`, those about other SAEs in `replications.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tiltmeter.analysis.estimates import ABOVE_ZERO, Estimand, Region
from tiltmeter.analysis.resampling import OfMeans, Rows
from tiltmeter.studies.estimands import Estimands, difference, of_columns, ratio
from tiltmeter.studies.gurnee2024.gap import gap
from tiltmeter.studies.gurnee2024.per_token import layers, loss_increase, mean_kl, mean_of, per_token
from tiltmeter.studies.margins import LESS, MARGIN, MORE
from tiltmeter.studies.results import NotMeasured, Results

PAIR_OF_KINDS = ("sae-error", "epsilon-random")
"""The comparison that most of the paper is about: SAE(x), and a random point at the same distance from x."""

RANDOM = ("epsilon-random", "theta-random-sae-norm", "theta-random-true-norm")
"""The three kinds of random point: at the same distance from x as SAE(x), or at the same angle."""

QUANTILES = (0.1, 0.5, 0.9)
"""They represent the whole distribution."""


def in_each_layer(one: str, other: str, region: Region = MORE, experiment: str = "layers") -> Estimands:
    """Mean KL of one intervention ÷ that of another, in each layer."""

    def estimands(results: Results) -> list[Estimand]:
        return [
            ratio(f"layer {layer}: KL of {one} ÷ {other}", mean_kl(curves, one), mean_kl(curves, other), region)
            for layer, curves in results.by_layer(experiment).items()
        ]

    return estimands


def clusters(results: Results) -> list[Estimand]:
    """KL of SAE(x) and of its norm-corrected version, each ÷ that of each kind of random point, in each layer."""
    return [
        ratio(f"layer {layer}: KL of {own} ÷ {random}", mean_kl(curves, own), mean_kl(curves, random))
        for layer, curves in results.by_layer("layers").items()
        for own in ("sae-error", "sae-norm-corrected")
        for random in RANDOM
    ]


def losses(results: Results) -> list[Estimand]:
    """Loss increase with SAE(x) minus that with the ε-random point times the margin, in each layer.

    Above zero, the first is the larger by the margin. Unlike their ratio, it is defined where the second is below zero.
    """
    return [
        difference(
            f"layer {layer}: loss increase with SAE(x) - {MARGIN:g} × that with epsilon-random",
            mean_of(loss_increase(one, "sae-error")),
            MARGIN * mean_of(loss_increase(one, "epsilon-random")),
            ABOVE_ZERO,
            " nats",
        )
        for layer, one in layers(results).items()
    ]


def loss_ratios(results: Results) -> list[Estimand]:
    """Loss increase with SAE(x) ÷ that with the ε-random point; undefined if the latter does not increase the loss."""
    return [
        of_columns(
            f"layer {layer}: loss increase of SAE(x) ÷ epsilon-random",
            [mean_of(loss_increase(one, kind)) for kind in PAIR_OF_KINDS],
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
    """Several quantiles over tokens of the KL of SAE(x) ÷ those for the ε-random point, in each layer."""
    by_quantile = [quantile_ratios(results, q) for q in QUANTILES]
    return [one for of_layer in zip(*by_quantile, strict=True) for one in of_layer]


def quantile_ratios(results: Results, q: float) -> list[Estimand]:
    """One quantile over tokens of the KL of SAE(x) ÷ the same for the ε-random point, in each layer."""
    return [
        of_columns(
            f"layer {layer}: {q:.0%} quantile of KL, SAE(x) ÷ epsilon-random",
            [per_token(curves, kind) for kind in PAIR_OF_KINDS],
            _quantile_ratio(q),
            MORE,
            "ratio",
        )
        for layer, curves in results.by_layer("layers").items()
    ]


def _quantile_ratio(q: float) -> Callable[[Rows], float]:
    def statistic(rows: Rows) -> float:
        pairs = rows.reshape(-1, 2)
        own, random = np.quantile(pairs[~np.isnan(pairs).any(1)], q, axis=0)
        return float(own / random)

    return statistic


def at_offsets(label: str, offsets: slice, region: Region) -> Estimands:
    """KL of SAE(x) ÷ that of the ε-random point at some offsets from the one token that is replaced, in each layer."""

    def estimands(results: Results) -> list[Estimand]:
        return [
            ratio(
                f"layer {layer}: KL of SAE(x) ÷ epsilon-random at {label}",
                mean_of(per_token(curves, "sae-error")[:, offsets]),
                mean_of(per_token(curves, "epsilon-random")[:, offsets]),
                region,
            )
            for layer, curves in results.by_layer("single").items()
        ]

    return estimands


def but_the_last_layer(claim: Estimands) -> Estimands:
    """The estimands of a claim about one replaced token, without the last layer of the model."""

    def estimands(results: Results) -> list[Estimand]:
        measured = list(results.by_layer("single"))
        last = max(int(name.rpartition("-")[2]) for name in _single_layers(results))
        found = [one for layer, one in zip(measured, claim(results), strict=True) if layer != last]
        if not found:
            raise NotMeasured("Only the last layer was measured, and this is about the others.")
        return found

    return estimands


def _single_layers(results: Results) -> list[str]:
    """Every layer of the model, measured or not."""
    return [name for name in (*results.found, *results.missing) if re.fullmatch(r"single-\d+", name)]


def early_persists(results: Results) -> list[Estimand]:
    """The fraction of the gap at the token that remains after it: in the first layer ÷ in the last."""
    measured = list(results.by_layer("single").items())
    if len(measured) < 2:
        raise NotMeasured("Only one layer was measured; this compares the first with the last.")
    (first, early), (last, late) = measured[0], measured[-1]
    columns = [part for curves in (early, late) for part in (gap(curves)[:, 0], mean_of(gap(curves)[:, 1:]))]

    left = OfMeans(lambda m: m[..., 1] / m[..., 0] / (m[..., 3] / m[..., 2]))
    label = f"mean gap at the 16 tokens after ÷ gap at the token: layer {first} ÷ layer {last}"
    return [of_columns(label, columns, left, MORE, "ratio")]


def smaller_alone(results: Results) -> list[Estimand]:
    """KL at the token if only it is replaced ÷ if all are, over the same sequences, in each layer."""
    every = results.by_layer("layers")
    found = []
    for layer, alone in results.by_layer("single").items():
        if layer not in every:
            continue
        token = int(alone.position[0])
        for kind in PAIR_OF_KINDS:
            pair = [per_token(alone, kind)[:, 0], per_token(every[layer], kind)[:, token]]
            n = min(map(len, pair))
            label = f"layer {layer}: KL of {kind} at token {token}, only it replaced ÷ all tokens replaced"
            found.append(ratio(label, pair[0][:n], pair[1][:n], LESS))
    return found
