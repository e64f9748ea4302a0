"""Replications: SAEs on the heads' outputs, and SAEs of one layer at several cosines (Riggs' comment)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import ABOVE_ZERO, Estimand, Region, Rows
from tiltmeter.studies.estimands import Quantities, of_columns, ratio, read
from tiltmeter.studies.gurnee2024.per_token import mean_kl
from tiltmeter.studies.results import NotMeasured, Results, saes_by_kind


def _attention(results: Results) -> list[tuple[int, xr.Dataset, xr.Dataset]]:
    """Sweeps at the heads, and in the stream of the same layer."""
    stream = results.by_layer("layers")
    return [
        (layer, curves, stream[layer]) for layer, curves in results.by_layer("attention").items() if layer in stream
    ]


def attention_gap_smaller(results: Results) -> list[Estimand]:
    """SAE(x) ÷ random point at the heads, over the same in the stream of that layer."""
    return [
        of_columns(
            f"layer {layer}: KL of SAE(x) ÷ epsilon-random, at the heads ÷ in the stream",
            _same([mean_kl(curves, kind) for curves in (heads, stream) for kind in ("sae-error", "epsilon-random")]),
            _double_ratio,
            Region(-np.inf, 1.0),
            "ratio",
        )
        for layer, heads, stream in _attention(results)
    ]


def attention_norm_matters_more(results: Results) -> list[Estimand]:
    """Norm change alone as a part of SAE(x)'s KL: at the heads less in the stream, mean of layers that have both."""
    kinds = ("sae-cos-corrected", "sae-error")
    both = _attention(results)
    columns = [mean_kl(curves, kind) for _, heads, stream in both for curves in (heads, stream) for kind in kinds]
    what = "KL of sae-cos-corrected ÷ SAE(x), at the heads - in the stream, mean of layers "
    what += ", ".join(str(layer) for layer, *_ in both)
    return [of_columns(what, _same(columns), _difference_of_ratios, ABOVE_ZERO)]


def _same(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The sequences that all have."""
    n = min(map(len, columns))
    return [column[:n] for column in columns]


def _double_ratio(rows: Rows) -> float:
    a, b, c, d = np.nanmean(rows, axis=0)
    return float((a / b) / (c / d))


def _difference_of_ratios(rows: Rows) -> float:
    a, b, c, d = np.nanmean(rows, axis=0).reshape(-1, 4).T
    return float(np.mean(a / b - c / d))


def by_cosine(curves: xr.Dataset) -> list[str]:
    """SAEs of one layer that were trained to reconstruct, the one whose output is at the greatest angle to x first."""
    readout = f"cos@{curves.attrs['site']}"
    local = saes_by_kind(curves).get("local", [])
    return sorted(local, key=lambda sae: float(np.nanmean(read(curves, readout, f"sae-error:{sae}"))))


def beside_random_at(which: int, region: Region) -> Quantities:
    """KL of the SAE with the least (0) or greatest (-1) cosine ÷ random points of the same norm at the same angle."""

    def estimands(results: Results) -> list[Estimand]:
        curves = results["saes"]
        ordered = by_cosine(curves)
        if len(ordered) < 2:
            raise NotMeasured(f"This needs two SAEs at {curves.attrs['site']} that were trained to reconstruct.")
        sae = ordered[which]
        cosine = float(np.nanmean(read(curves, f"cos@{curves.attrs['site']}", f"sae-error:{sae}")))
        return [
            ratio(
                f"{sae}, mean cosine {cosine:.2f}: KL of its norm-corrected output ÷ theta-random-true-norm",
                read(curves, "kl", f"sae-norm-corrected:{sae}", 1.0),
                read(curves, "kl", f"theta-random-true-norm:{sae}", 1.0),
                region,
            )
        ]

    return estimands
