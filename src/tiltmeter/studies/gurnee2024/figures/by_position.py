"""Figure 5: mean KL by position in the sequence, in each layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tiltmeter.analysis.clusters import Documents
from tiltmeter.analysis.curves import documents_of
from tiltmeter.analysis.estimates import ABOVE_ONE
from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel, in_rows
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.estimands import PerToken, correlation
from tiltmeter.studies.gurnee2024.estimands import PAIR_OF_KINDS
from tiltmeter.studies.gurnee2024.figures.mean_lines import mean_line
from tiltmeter.studies.gurnee2024.figures.wording import ALL_TOKENS, BANDS, COLUMNS, INTERVALS, KL, PAIR, TITLE, alone
from tiltmeter.studies.gurnee2024.gap import PREDICTORS, gap_by_layer
from tiltmeter.studies.gurnee2024.per_token import layer_of, mean_of, per_token
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

ENOUGH, WINDOW = 1000, 8
"""With fewer sequences than `ENOUGH`, means are over `WINDOW` positions: those of single positions would be noise."""


def _chart(results: Results) -> Chart:
    panels = []
    for layer, curves in results.by_layer("layers").items():
        marks = tuple(_line(kind, per_token(curves, kind), documents_of(curves)) for kind in PAIR_OF_KINDS)
        panels.append(Panel(f"layer {layer}", Axis("position"), Axis(KL), marks))
    return Chart(in_rows(panels, COLUMNS), share=("x",))


def _line(kind: str, values: PerToken, documents: Documents | None) -> Line:
    width = 1 if len(values) >= ENOUGH else WINDOW
    starts = range(0, values.shape[1], width)
    means = np.stack([mean_of(values[:, start : start + width]) for start in starts], -1)
    line = mean_line(kind, means, style(kind), documents)
    last = values.shape[1] - 1
    return replace(line, x=np.array([(start + min(start + width - 1, last)) / 2 for start in starts]))


def _finding(results: Results) -> str:
    position = PREDICTORS["position"]
    found = {
        layer: alone(results, correlation("", values, position(layer_of(results, layer)), ABOVE_ONE))
        for layer, values in gap_by_layer(results).items()
    }
    words = ", ".join(f"{layer} {one}" for layer, one in found.items())
    return f"Correlation of the KL gap with position, by layer: {words}. {INTERVALS}"


FIGURE_5 = PaperFigure(
    title=f"{TITLE}, Figure 5: KL by position",
    caption=f"Mean KL by position in the sequence if tokens are replaced by {PAIR}, in each layer; averaged over "
    f"{WINDOW} positions at a time if there are fewer than {ENOUGH} sequences. {ALL_TOKENS} {BANDS}",
    claimed="There is some relationship with the absolute position.",
    needs=("layers", "tokens"),
    chart=_chart,
    finding=_finding,
)
