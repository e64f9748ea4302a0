"""Figures 6 and 7: KL at a token that alone is replaced, and at those after it."""

from __future__ import annotations

import numpy as np

from tiltmeter.analysis.curves import documents_of
from tiltmeter.analysis.estimates import ABOVE_ONE
from tiltmeter.reports.charts.chart import Axis, Chart, Panel, in_rows
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.gurnee2024.estimands import PAIR_OF_KINDS, at_offsets
from tiltmeter.studies.gurnee2024.experiments import AFTER, INTERVENTIONS, TOKEN
from tiltmeter.studies.gurnee2024.figures.by_intervention import bars
from tiltmeter.studies.gurnee2024.figures.mean_lines import mean_line
from tiltmeter.studies.gurnee2024.figures.wording import (
    BANDS,
    COLUMNS,
    INTERVALS,
    KL,
    PAIR,
    SUBSTITUTES,
    TITLE,
    WHISKERS,
    range_over_layers,
)
from tiltmeter.studies.gurnee2024.per_token import per_token
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


def _decay_chart(results: Results) -> Chart:
    """Mean KL of SAE(x) and the random point by distance from the replaced token, in each layer."""
    panels = []
    for layer, curves in results.by_layer("single").items():
        documents = documents_of(curves)
        marks = tuple(mean_line(kind, per_token(curves, kind), style(kind), documents) for kind in PAIR_OF_KINDS)
        lowest = min(float(np.nanmin(mark.y)) for mark in marks)
        highest = max(float(np.nanmax(mark.y)) for mark in marks)
        axis = Axis(KL, log=True, limits=(lowest / 2, highest * 2)) if lowest > 0 else Axis(KL)
        panels.append(Panel(f"layer {layer}", Axis("tokens after the one replaced"), axis, marks))
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def _intervention_chart(results: Results) -> Chart:
    """Mean KL of every intervention by layer, at the replaced token and at the next."""
    single = results.by_layer("single")
    positions = next(iter(single.values())).position.to_numpy()
    panels = []
    for offset in range(2):
        values = {
            layer: {kind: per_token(one, kind)[:, offset] for kind in INTERVENTIONS} for layer, one in single.items()
        }
        panels.append(bars(f"token {int(positions[offset])}", values, documents_of(next(iter(single.values())))))
    return Chart((tuple(panels),), share=())


def _finding(results: Results) -> str:
    """The ratio at the token, at the next one and at the far end."""
    places = {
        "at the token": slice(0, 1),
        "at the next": slice(1, 2),
        f"at the {AFTER // 2 + 1}th to {AFTER}th after": slice(AFTER // 2 + 1, AFTER + 1),
    }
    parts = [
        range_over_layers(f"KL of SAE(x) ÷ random point {what}", results, at_offsets(what, place, ABOVE_ONE)(results))
        for what, place in places.items()
    ]
    return " ".join([*parts, INTERVALS])


FIGURE_6 = PaperFigure(
    title=f"{TITLE}, Figure 6: one token replaced",
    caption=f"Mean KL in each layer if only token {TOKEN} is replaced, by {PAIR}: at that token and at the {AFTER} "
    f"after it. {BANDS}",
    claimed="There is a clear gap, and it persists through the following tokens, although the magnitude depends on "
    "how early the layer is.",
    needs=("single",),
    chart=_decay_chart,
    finding=_finding,
)

FIGURE_7 = PaperFigure(
    title=f"{TITLE}, Figure 7: one token replaced, all interventions",
    caption=f"Mean KL if only token {TOKEN} is replaced: at that token and at the next. {SUBSTITUTES} {WHISKERS}",
    claimed="KL is lower than if all tokens are replaced, but that of SAE(x) is still more than twice that of the "
    "random point, at both tokens, except for token 33 in layer 11.",
    needs=("single",),
    chart=_intervention_chart,
    finding=_finding,
)
