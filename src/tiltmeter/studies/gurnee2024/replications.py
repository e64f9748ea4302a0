"""Estimands of the replications: SAEs on the heads' outputs, and SAEs of one layer at several cosines (Riggs)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import ABOVE_ZERO, Estimand, Region
from tiltmeter.analysis.resampling import OfMeans
from tiltmeter.studies.estimands import Estimands, PerSequence, double_ratio, of_columns, ratio, read
from tiltmeter.studies.gurnee2024.estimands import PAIR_OF_KINDS
from tiltmeter.studies.gurnee2024.per_token import mean_kl
from tiltmeter.studies.margins import LESS, MARGIN
from tiltmeter.studies.results import NotMeasured, Results, saes_by_kind


def _attention(results: Results) -> list[tuple[int, xr.Dataset, xr.Dataset]]:
    """Layers with sweeps both at the heads' outputs and in the residual stream: (layer, heads, stream)."""
    stream = results.by_layer("layers")
    return [
        (layer, curves, stream[layer]) for layer, curves in results.by_layer("attention").items() if layer in stream
    ]


def attention_gap_smaller(results: Results) -> list[Estimand]:
    """KL of SAE(x) ÷ ε-random point at the heads, divided by the same ratio in the stream of that layer."""
    return [
        of_columns(
            f"layer {layer}: KL of SAE(x) ÷ epsilon-random, at the heads ÷ in the stream",
            _same([mean_kl(curves, kind) for curves in (heads, stream) for kind in PAIR_OF_KINDS]),
            double_ratio,
            LESS,
            "ratio",
        )
        for layer, heads, stream in _attention(results)
    ]


def attention_norm_matters_more(results: Results) -> list[Estimand]:
    """The share of the gap that is due to the norm change, over all layers that have both: at the heads, and more.

    The gap is that of the post: KL of SAE(x) - KL of the random point at the same distance. What is due to the norm
    change is what goes if SAE(x) is scaled to the norm of x. Undefined where there is no gap. The share may be
    negative, so the margin of "more" is held by a difference (`_more_than`).
    """
    both = _attention(results)
    columns = [mean_kl(curves, kind) for _, heads, stream in both for curves in (heads, stream) for kind in _OF_SHARE]
    label = "(KL of SAE(x) - sae-norm-corrected) ÷ (KL of SAE(x) - epsilon-random), at the heads - least that counts "
    label += f"as more than in the stream, layers {', '.join(str(layer) for layer, *_ in both)}"
    return [of_columns(label, _same(columns), _MORE_OF_THE_GAP, ABOVE_ZERO)]


_OF_SHARE = ("sae-error", "sae-norm-corrected", "epsilon-random")


def _share_due_to_norm(means: np.ndarray) -> np.ndarray:
    """Of KL of SAE(x), of its norm-corrected version and of the random point, on the last axis: NaN without a gap."""
    own, corrected, random = (means[..., at] for at in range(3))
    gap = own - random
    return np.divide(own - corrected, gap, out=np.full_like(gap, np.nan), where=gap > 0)


def _more_than(share: np.ndarray) -> np.ndarray:
    """The least share that counts as more than this one: by the margin, whichever sign it has."""
    return np.maximum(share * MARGIN, share / MARGIN)


def _more_of_the_gap(means: np.ndarray) -> np.ndarray:
    """Of six columns a layer, three at the heads and three in the stream: sums over layers, then shares."""
    sums = means.reshape(*means.shape[:-1], -1, 2, 3).sum(-3)
    heads, stream = (_share_due_to_norm(sums[..., at, :]) for at in range(2))
    return np.asarray(heads - _more_than(stream))


_MORE_OF_THE_GAP = OfMeans(_more_of_the_gap)


def _same(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The columns, cut to the sequences that all have."""
    n = min(map(len, columns))
    return [column[:n] for column in columns]


def by_cosine(curves: xr.Dataset) -> list[str]:
    """SAEs of one layer that were trained to reconstruct, by mean cosine of their output with x, the lowest first."""
    return sorted(saes_by_kind(curves).get("local", []), key=lambda sae: mean_cosine(curves, f"sae-error:{sae}"))


def mean_cosine(curves: xr.Dataset, direction: str) -> float:
    """Mean cosine of an intervention's activation with x."""
    return float(np.nanmean(read(curves, f"cos@{curves.attrs['site']}", direction)))


def beside_random_at(which: int, region: Region) -> Estimands:
    """KL of the SAE with the lowest (0) or highest (-1) cosine ÷ that of random points with equal norm and angle."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results["saes"]
        ordered = by_cosine(curves)
        if len(ordered) < 2:
            raise NotMeasured(f"This needs two SAEs at {curves.attrs['site']} that were trained to reconstruct.")
        sae = ordered[which]
        label = f"{sae}, mean cosine {mean_cosine(curves, f'sae-error:{sae}'):.2f}: "
        label += "KL of its norm-corrected output ÷ theta-random-true-norm"
        own, random = (kl_of(curves, f"{kind}:{sae}") for kind in ("sae-norm-corrected", "theta-random-true-norm"))
        return [ratio(label, own, random, region)]

    return estimands


def kl_of(curves: xr.Dataset, direction: str) -> PerSequence:
    """KL per sequence of one intervention; a substitution has a single step."""
    return read(curves, "kl", direction)[:, 0]
