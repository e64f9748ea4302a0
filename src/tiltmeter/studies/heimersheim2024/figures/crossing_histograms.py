"""Section 2: how well the angle or length at KL 0.5 distinguishes real from random directions."""

from __future__ import annotations

from dataclasses import replace

from tiltmeter.analysis.shapes import censored_last, separation_auc
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.shapes import panels
from tiltmeter.studies.estimands import combined
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD, crossings
from tiltmeter.studies.heimersheim2024.estimands import earlier
from tiltmeter.studies.heimersheim2024.experiments import RANDOM, REAL
from tiltmeter.studies.heimersheim2024.figures.wording import TITLE, estimates_of, median_crossing
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure

_CLAIMED = estimates_of(combined(earlier("sphere", "absolute"), earlier("straight", "absolute")))


def _chart(results: Results) -> Chart:
    """Rows: angle and length where KL passes the threshold. Columns: counts, and the cumulative fraction."""
    rows = []
    for mode in ("sphere", "straight"):
        curves = results[mode]
        found = {name: crossings(curves, name) for name in (RANDOM, REAL)}
        left, right = panels(found, f"{axis_label(curves.step)} at KL {THRESHOLD:g}")
        never = ", ".join(str(int(shape.censored.sum())) for shape in found.values())
        auc = separation_auc(found[REAL], found[RANDOM])
        title = f"area under the ROC curve {auc:.2f}"
        rows.append((replace(left, title=title), replace(right, title=f"never past it: {never}")))
    return Chart(tuple(rows), share=())


def _finding(results: Results) -> str:
    """Median crossings, how well they separate the two kinds, and the estimates of the claims."""
    parts = []
    for mode, units in (("sphere", "°"), ("straight", " ‖x‖")):
        curves = results[mode]
        medians = [
            f"{median_crossing(censored_last(crossings(curves, name)), units)} along {name}" for name in (REAL, RANDOM)
        ]
        auc = separation_auc(crossings(curves, REAL), crossings(curves, RANDOM))
        parts.append(
            f"In {mode} mode KL passes {THRESHOLD:g} at a median of {', '.join(medians)}; the area under the ROC "
            f"curve, pooled over all prompts, is {auc:.2f}."
        )
    return " ".join([*parts, _CLAIMED(results)])


FIGURE_2_HISTOGRAM = PaperFigure(
    title=f"{TITLE}, section 2: distinguishing directions",
    caption=f"The angle (above) and the length (below) at which KL passes {THRESHOLD:g}, one curve for each prompt and "
    "kind of direction. Left: counts; right: cumulative fraction of curves. Curves that never pass are in no bin but "
    "count in the denominator; their numbers stand above the right panel, in the order of the legend.",
    claimed="The angle at which KL exceeds 0.5 reasonably distinguishes the two classes of perturbation.",
    needs=("sphere", "straight"),
    chart=_chart,
    finding=_finding,
)
