"""Figure 11: the tokens with the largest mean KL gap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Panel
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.gurnee2024.figures.wording import GAP, TITLE
from tiltmeter.studies.gurnee2024.gap import gap
from tiltmeter.studies.gurnee2024.per_token import fact, layer_of, study_layer
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.study import PaperFigure
from tiltmeter.studies.token_facts import strings_of

FEWEST_OCCURRENCES, TOP = 5, 20
"""The fewest occurrences of a token that is considered, and the number of tokens shown."""


class Worst(NamedTuple):
    """The tokens with the largest mean gap, the largest first."""

    names: tuple[str, ...]
    occurrences: Float[np.ndarray, " token"]
    mean: Float[np.ndarray, " token"]
    spread: Float[np.ndarray, " token"]
    """Standard deviation over the token's occurrences."""


def worst(results: Results) -> Worst:
    """The tokens with the largest mean gap at the study's layer, of those that occur often enough.

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


def _chart(results: Results) -> Chart:
    found = worst(results)
    low, high = found.mean - found.spread, found.mean + found.spread
    bars = Bars("mean gap", found.names, found.mean, style("sae-error"), low, high)
    axis = Axis(f"KL gap, nats, layer {study_layer(results)}")
    return Chart(((Panel("", Axis("token (occurrences)"), axis, (bars,)),),))


def _finding(results: Results) -> str:
    """The first few, and for how many the gap varies by more than its mean."""
    found = worst(results)
    first = ", ".join(
        f"{name} {mean:.2g} ± {spread:.2g}"
        for name, mean, spread in zip(found.names[:3], found.mean, found.spread, strict=False)
    )
    wide = int((found.spread > found.mean).sum())
    return (
        f"Largest mean gaps (± standard deviation over occurrences, nats) among tokens that occur {FEWEST_OCCURRENCES} "
        f"times or more: {first}. For {wide} of the {len(found.names)} tokens the standard deviation exceeds the mean."
    )


FIGURE_11 = PaperFigure(
    title=f"{TITLE}, Figure 11: tokens with the largest gap",
    caption=f"{GAP} The {TOP} tokens with the largest mean gap, among those that occur {FEWEST_OCCURRENCES} times or "
    "more (in parentheses: occurrences). Whiskers: ± one standard deviation over the token's occurrences.",
    claimed="There is no obvious pattern, and the variance is quite high.",
    needs=("layers", "tokens", "draws"),
    chart=_chart,
    finding=_finding,
)
