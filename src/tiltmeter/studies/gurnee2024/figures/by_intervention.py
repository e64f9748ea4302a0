"""Figures 2 and 12: mean KL of every intervention by layer, in the residual stream and at the heads' outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tiltmeter.analysis.clusters import Documents
from tiltmeter.analysis.curves import documents_of
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Panel
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.estimands import PerSequence
from tiltmeter.studies.gurnee2024.estimands import in_each_layer
from tiltmeter.studies.gurnee2024.experiments import INTERVENTIONS
from tiltmeter.studies.gurnee2024.figures.wording import (
    ALL_TOKENS,
    INTERVALS,
    KL,
    SUBSTITUTES,
    TITLE,
    WHISKERS,
    range_over_layers,
)
from tiltmeter.studies.gurnee2024.per_token import mean_kl
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


def _chart(experiment: str) -> Callable[[Results], Chart]:
    def chart(results: Results) -> Chart:
        values = {
            layer: {kind: mean_kl(curves, kind) for kind in INTERVENTIONS}
            for layer, curves in results.by_layer(experiment).items()
        }
        documents = documents_of(next(iter(results.by_layer(experiment).values())))
        return Chart(((bars("", values, documents),),))

    return chart


def bars(title: str, values: Mapping[int, Mapping[str, PerSequence]], documents: Documents | None) -> Panel:
    """A group of bars for each layer: means over sequences of every intervention's KL, with their intervals."""
    marks = []
    for kind in INTERVENTIONS:
        found = [mean_interval(one[kind], documents=documents) for one in values.values()]
        y, low, high = (np.array([float(part[at]) for part in found]) for at in range(3))
        marks.append(Bars(kind, tuple(map(str, values)), y, style(kind), low, high))
    return Panel(title, Axis("layer"), Axis(KL), tuple(marks))


def _finding(experiment: str) -> Callable[[Results], str]:
    """SAE(x), its norm-corrected version and the norm change alone, relative to the random point."""
    kinds = {
        "KL of SAE(x) ÷ that of the random point at the same distance": "sae-error",
        "The same with SAE(x) scaled to the norm of x": "sae-norm-corrected",
        "The same with the norm change alone": "sae-cos-corrected",
    }

    def finding(results: Results) -> str:
        parts = [
            range_over_layers(what, results, in_each_layer(kind, "epsilon-random", experiment=experiment)(results))
            for what, kind in kinds.items()
        ]
        return " ".join([*parts, INTERVALS])

    return finding


FIGURE_2 = PaperFigure(
    title=f"{TITLE}, Figure 2: interventions by layer",
    caption=f"Mean KL(clean ‖ perturbed). {SUBSTITUTES} {ALL_TOKENS} {WHISKERS}",
    claimed="Three clusters: the norm change alone matters little, the three kinds of random point matter more, "
    "SAE(x) and its norm-corrected version most. In all layers SAE(x) has 2.2 to 4.5 times the KL of the random point.",
    needs=("layers",),
    chart=_chart("layers"),
    finding=_finding("layers"),
)

FIGURE_12 = PaperFigure(
    title=f"{TITLE}, Figure 12: SAEs on the heads' outputs",
    caption=f"As Figure 2, for SAEs on the concatenated outputs of the attention heads (`hook_z`). {SUBSTITUTES} "
    f"{ALL_TOKENS} {WHISKERS}",
    claimed="The gap is smaller (0.9 to 1.7 times), and more of it is due to the norm change.",
    needs=("attention",),
    chart=_chart("attention"),
    finding=_finding("attention"),
)
