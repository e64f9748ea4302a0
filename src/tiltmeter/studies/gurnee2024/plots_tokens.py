"""How the figures of Gurnee 2024 about single tokens are drawn: how the gap varies, and what goes with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tiltmeter.analysis.bootstrap import bootstrap_mean
from tiltmeter.analysis.correlations import matrix, sums_of
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, HeatMap, Histogram, Line, Panel, Points, Rule, in_rows
from tiltmeter.reports.charts.styles import style, styles
from tiltmeter.studies.estimands import read
from tiltmeter.studies.gurnee2024.estimands_tokens import gaps, layer_of
from tiltmeter.studies.gurnee2024.per_token import PREDICTORS, drawn, fact, gap, mean_of, study_layer
from tiltmeter.studies.gurnee2024.plots import COLUMNS, KL
from tiltmeter.studies.results import NotMeasured, Results, saes_by_kind
from tiltmeter.studies.token_facts import strings_of

SHOWN = 5
"""Tokens whose random points are drawn."""
BINS = 25
GROUPS = 12
"""Groups of equally many tokens, by something that might go with the gap."""
FEWEST_OCCURRENCES, TOP = 5, 20
"""Tokens in the table: how often they occur at least, and how many there are."""
GAP = "KL gap, nats"


def many_draws(results: Results) -> Chart:
    """Random points of a few tokens, spread over the order of their deviations, and the deviations of all tokens."""
    found = drawn(results)
    deviations = found.deviations
    known = np.flatnonzero(np.isfinite(deviations))
    if len(known) < SHOWN:
        raise NotMeasured(f"Fewer than {SHOWN} tokens have random points that differ.")
    order = known[np.argsort(deviations[known])]
    shown = order[((np.arange(SHOWN) + 0.5) / SHOWN * len(order)).astype(int)]
    panels = [_one_token(found.random[at], float(found.sae[at]), float(deviations[at]), int(at)) for at in shown]
    edges = np.linspace(-5.0, 20.0, BINS + 1)
    counts = np.histogram(np.clip(deviations[known], edges[0], edges[-1]), edges)[0].astype(np.float64)
    every = Histogram("sae-error", edges, counts, style("sae-error"))
    label = "std above the mean of random points"
    panels.append(Panel("all tokens", Axis(label), Axis("tokens"), (every,)))
    return Chart(in_rows(panels, COLUMNS), share=())


def _one_token(random: Float[np.ndarray, " draw"], sae: float, deviation: float, sequence: int) -> Panel:
    edges = np.linspace(0.0, 1.05 * max(float(random.max()), sae), BINS + 1)
    counts = np.histogram(random, edges)[0].astype(np.float64)
    marks = (
        Histogram("epsilon-random", edges, counts, style("epsilon-random")),
        Rule(sae, text="SAE(x)", style=style("sae-error")),
    )
    return Panel(f"sequence {sequence}: {deviation:+.1f} std", Axis(KL), Axis("random points"), marks)


class Trend(NamedTuple):
    """The mean of something in groups of equally many tokens."""

    x: Float[np.ndarray, " group"]
    mean: Float[np.ndarray, " group"]
    low: Float[np.ndarray, " group"]
    high: Float[np.ndarray, " group"]


def trend(by: Float[np.ndarray, "sequence position"], values: Float[np.ndarray, "sequence position"]) -> Trend:
    """Means of `values` in groups by `by`, with intervals over the sequences that have a token in the group."""
    edges = np.unique(np.nanquantile(by, np.linspace(0, 1, GROUPS + 1)))
    group = np.clip(np.searchsorted(edges, by, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for one in range(max(len(edges) - 1, 1)):
        inside = (group == one) & ~np.isnan(by)
        if not inside.any():
            continue
        found = bootstrap_mean(mean_of(np.where(inside, values, np.nan)), resamples=1000)
        rows.append([float(np.mean(by[inside])), *map(float, found[:3])])
    return Trend(*np.array(rows).T)


def predictors(results: Results) -> Chart:
    """Mean gap by what might go with it, at the study's layer."""
    layer = study_layer(results)
    one = layer_of(results, layer)
    values = gap(one.curves)
    panels = []
    for name, of in PREDICTORS.items():
        by = of(one)
        r = float(matrix(sums_of([values, by]))[0, 1])
        found = trend(by, values)
        line = Line("gap", found.x, found.mean, style("sae-error"), found.low, found.high)
        said = "does not vary" if np.isnan(r) else f"r = {r:+.2f}"
        panels.append(Panel(f"{name} ({said})", Axis(name), Axis(f"{GAP}, layer {layer}"), (line,)))
    return Chart(in_rows(panels, 2), share=("y",))


def between_layers(results: Results) -> Chart:
    """Correlations of the gap of each layer with that of each other."""
    found = gaps(results)
    if len(found) < 2:
        raise NotMeasured("The gap was measured at one layer alone.")
    z = matrix(sums_of(list(found.values())))
    z = np.where(np.eye(len(z), dtype=bool), np.nan, z)  # a layer's correlation with itself says nothing
    at = np.array(list(found), np.float64)
    mark = HeatMap("correlation of KL gaps over tokens", at, at, z)
    return Chart(((Panel("", Axis("layer"), Axis("layer"), (mark,)),),))


class Worst(NamedTuple):
    """The tokens with the largest mean gap, the largest first."""

    names: tuple[str, ...]
    occurrences: Float[np.ndarray, " token"]
    mean: Float[np.ndarray, " token"]
    spread: Float[np.ndarray, " token"]
    """Standard deviation over the token's occurrences."""


def worst(results: Results) -> Worst:
    """Of the tokens that occur often enough.

    Raises:
        NotMeasured: none does.
    """
    one = layer_of(results, study_layer(results))
    values, ids = gap(one.curves), fact(one.facts, "token").astype(int)
    known = ~np.isnan(values)
    token, member = np.unique(ids[known], return_inverse=True)
    count = np.bincount(member).astype(np.float64)
    mean = np.bincount(member, values[known]) / count
    spread = np.sqrt(np.bincount(member, (values[known] - mean[member]) ** 2) / np.maximum(count - 1, 1))
    often = np.flatnonzero(count >= FEWEST_OCCURRENCES)
    if not len(often):
        raise NotMeasured(f"No token occurs {FEWEST_OCCURRENCES} times; measure more sequences.")
    top = often[np.argsort(-mean[often], kind="stable")][:TOP]
    text = strings_of(one.facts)
    names = tuple(f"{text[int(token[at])]!r} ({int(count[at])})" for at in top)
    return Worst(names, count[top], mean[top], spread[top])


def worst_tokens(results: Results) -> Chart:
    """Mean gap of these tokens, and how it varies over their occurrences."""
    found = worst(results)
    bars = Bars(
        "mean gap",
        found.names,
        found.mean,
        style("sae-error"),
        found.mean - found.spread,
        found.mean + found.spread,
    )
    panel = Panel("", Axis("token (occurrences)"), Axis(f"{GAP}, layer {study_layer(results)}"), (bars,))
    return Chart(((panel,),))


def against_cosine(results: Results) -> Chart:
    """KL of random points of x's norm by their cosine with x, and of the SAEs of the layer."""
    sphere = results["cosine"]
    found = bootstrap_mean(sphere.kl.sel(direction="isotropic").transpose("step", "sequence").to_numpy())
    x = np.cos(np.deg2rad(sphere.step.to_numpy()))
    marks: list[Line | Points] = [
        Line("random, norm of x", x, found.mean, style("theta-random-true-norm"), found.low, found.high)
    ]
    if "saes" in results:
        marks += _of_saes(results)
    site = sphere.attrs["site"]
    return Chart(((Panel("", Axis(f"cosine with x at {site}"), Axis(KL), tuple(marks)),),))


def _of_saes(results: Results) -> list[Points]:
    """A dot for each SAE's norm-corrected output, by the SAE's kind."""
    curves = results["saes"]
    cosine = f"cos@{curves.attrs['site']}"
    looks = styles([str(name) for name in curves.direction.values])
    marks = []
    for kind, saes in saes_by_kind(curves).items():
        names = [f"sae-norm-corrected:{sae}" for sae in saes]
        x = np.array([float(np.nanmean(read(curves, cosine, name, 1.0))) for name in names])
        kl = bootstrap_mean(np.stack([read(curves, "kl", name, 1.0) for name in names]))
        marks.append(
            Points(
                f"{kind} SAEs, norm-corrected", x, kl.mean, looks[f"sae-error:{saes[-1]}"], kl.low, kl.high, tuple(saes)
            )
        )
    return marks
