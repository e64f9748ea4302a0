"""How the figures of Gurnee 2024 are drawn: interventions by layer, their distributions, and one token alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.analysis.bootstrap import bootstrap_mean
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Histogram, Line, Panel, Points, in_rows
from tiltmeter.reports.charts.styles import Style, style
from tiltmeter.studies.gurnee2024.experiments import INTERVENTIONS
from tiltmeter.studies.gurnee2024.per_token import layers, loss_increase, mean_kl, mean_of, per_token
from tiltmeter.studies.results import Results

Draw = Callable[[Results], Chart]

KL = "KL(clean ‖ perturbed), nats"
PAIR = ("sae-error", "epsilon-random")
"""What most figures compare: SAE(x), and a random point as far away."""

MOST_KL, MOST_LOSS = 1.0, 1.0
"""Where histograms end, nats; what is beyond is counted in the last bin."""
BINS = 50
ENOUGH, WINDOW = 1000, 8
"""With fewer sequences, so many positions are averaged together: single ones would be noise."""
COLUMNS = 3


def predictions(results: Results) -> Chart:
    """The likeliest next tokens of some prompts: log-probabilities by rank."""
    found = results["predictions"]
    prompts, predicted = (json.loads(found.attrs[name]) for name in ("prompts", "predicted"))
    panels = [
        _prediction(found.isel(case=case), prompt, tuple(map(repr, texts)))
        for case, (prompt, texts) in enumerate(zip(prompts, predicted, strict=True))
    ]
    return Chart(in_rows(panels, COLUMNS), share=("x", "y"))


def _prediction(one: xr.Dataset, prompt: str, texts: tuple[str, ...]) -> Panel:
    rank = one["rank"].to_numpy().astype(np.float64)
    runs = {str(name): one.log_probability.sel(run=name).to_numpy() for name in one.run.values}
    kl = ", ".join(f"{float(one.kl.sel(run=name)):.2f}" for name in runs if name != "clean")
    marks: tuple[Line | Points, ...] = (
        *(Line(name, rank, values, style(name)) for name, values in runs.items()),
        Points("clean", rank, runs["clean"], style("clean"), texts=texts),
    )
    shown = "".join(letter if letter.isprintable() else "�" for letter in " ".join(prompt.split())[-20:])
    title = f"…{shown}: KL {kl}"
    return Panel(title, Axis("rank of the next token, clean"), Axis("log probability, nats"), marks)


def by_layer(experiment: str) -> Draw:
    """A group of bars for each layer: mean KL of every intervention."""

    def draw(results: Results) -> Chart:
        values = {
            str(layer): {kind: mean_kl(curves, kind) for kind in INTERVENTIONS}
            for layer, curves in results.by_layer(experiment).items()
        }
        return Chart(((_bars("", values, "layer"),),))

    return draw


def _bars(title: str, values: dict[str, dict[str, Float[np.ndarray, " sequence"]]], label: str) -> Panel:
    """Means over sequences with their intervals, by category and intervention."""
    marks = []
    for kind in INTERVENTIONS:
        found = [bootstrap_mean(one[kind]) for one in values.values()]
        y, low, high = (np.array([float(part[at]) for part in found]) for at in range(3))
        marks.append(Bars(kind, tuple(values), y, style(kind), low, high))
    return Panel(title, Axis(label), Axis(KL), tuple(marks))


def kl_histograms(results: Results) -> Chart:
    """How many tokens have what KL, in each layer."""
    panels = []
    for layer, curves in results.by_layer("layers").items():
        values = {kind: per_token(curves, kind) for kind in PAIR}
        far = " and ".join(f"{float(np.nanquantile(one, 0.999)):.2g}" for one in values.values())
        panels.append(
            Panel(
                f"layer {layer} (99.9 %: {far})",
                Axis(KL),
                Axis("tokens", log=True, limits=_counts(values)),
                _histograms(values, 0.0, MOST_KL),
            )
        )
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def loss_histograms(results: Results) -> Chart:
    """How many tokens have what increase of the loss, in each layer."""
    panels = []
    for layer, one in layers(results).items():
        values = {kind: loss_increase(one, kind) for kind in PAIR}
        means = " and ".join(f"{float(np.nanmean(each)):+.2g}" for each in values.values())
        panels.append(
            Panel(
                f"layer {layer} (mean: {means})",
                Axis("increase of the next-token loss, nats"),
                Axis("tokens", log=True, limits=_counts(values)),
                _histograms(values, -MOST_LOSS, MOST_LOSS),
            )
        )
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def _counts(values: dict[str, np.ndarray]) -> tuple[float, float]:
    """From half a token to all."""
    return 0.5, 1.3 * max(one.size for one in values.values())


def _histograms(values: dict[str, np.ndarray], low: float, high: float) -> tuple[Histogram, ...]:
    """Counts in common bins; what is beyond them is in the first and the last."""
    edges = np.linspace(low, high, BINS + 1)
    known = {kind: np.clip(one[~np.isnan(one)], low, high) for kind, one in values.items()}
    return tuple(
        Histogram(kind, edges, np.histogram(one, edges)[0].astype(np.float64), style(kind))
        for kind, one in known.items()
    )


def by_position(results: Results) -> Chart:
    """Mean KL by position, in each layer."""
    panels = []
    for layer, curves in results.by_layer("layers").items():
        values = {kind: per_token(curves, kind) for kind in PAIR}
        marks = tuple(_by_position(kind, one) for kind, one in values.items())
        panels.append(Panel(f"layer {layer}", Axis("position"), Axis(KL), marks))
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def _by_position(kind: str, values: Float[np.ndarray, "sequence position"]) -> Line:
    width = 1 if len(values) >= ENOUGH else WINDOW
    starts = range(0, values.shape[1], width)
    means = np.stack([mean_of(values[:, start : start + width]) for start in starts], -1)
    line = mean_line(kind, means, style(kind))
    last = values.shape[1] - 1
    return replace(line, x=np.array([(start + min(start + width - 1, last)) / 2 for start in starts]))


def after_one_token(results: Results) -> Chart:
    """Mean KL at the token that alone is replaced, and at those after it, in each layer."""
    panels = []
    for layer, curves in results.by_layer("single").items():
        marks = tuple(mean_line(kind, per_token(curves, kind), style(kind)) for kind in PAIR)
        lowest = min(float(np.nanmin(mark.y)) for mark in marks)
        highest = max(float(np.nanmax(mark.y)) for mark in marks)
        axis = Axis(KL, log=True, limits=(lowest / 2, highest * 2)) if lowest > 0 else Axis(KL)
        panels.append(Panel(f"layer {layer}", Axis("tokens after the one replaced"), axis, marks))
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def mean_line(name: str, values: Float[np.ndarray, "sequence place"], look: Style) -> Line:
    """Mean over sequences at each place, with its interval."""
    found = bootstrap_mean(values.T, resamples=1000)
    return Line(name, np.arange(values.shape[1], dtype=np.float64), found.mean, look, found.low, found.high)


def one_token_bars(results: Results) -> Chart:
    """Mean KL of every intervention at the token that alone is replaced, and at the next."""
    single = results.by_layer("single")
    panels = []
    for offset, curves in enumerate([next(iter(single.values()))] * 2):
        values = {
            str(layer): {kind: per_token(one, kind)[:, offset] for kind in INTERVENTIONS}
            for layer, one in single.items()
        }
        panels.append(_bars(f"token {int(curves.position[offset])}", values, "layer"))
    return Chart((tuple(panels),), share=())
