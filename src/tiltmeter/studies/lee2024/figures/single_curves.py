"""No figure of the paper: the shapes of single tokens' curves, which the means of its figures hide."""

from __future__ import annotations

from tiltmeter.analysis.shape_tables import shape_summary, shape_table
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.reports.charts.shapes import distributions
from tiltmeter.reports.tables.format import three_digits
from tiltmeter.studies.lee2024.figures.wording import TITLE
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


def _chart(results: Results) -> Chart:
    return distributions(results["shapes"], "kl")


def _finding(results: Results) -> str:
    """The length at which single tokens' curves reach half of their own end."""
    table = shape_summary(shape_table(results["shapes"], "kl", fraction=0.5, statistics=("max_slope",)))
    rows = table[table.statistic == "relative_crossing_at"]
    parts = [
        f"{row.direction} {three_digits(row.median)} ({row.censored / max(row.n + row.censored, 1):.1%})"
        for row in rows.itertuples()
    ]
    return (
        "Median length at which single tokens' curves reach half of their final value (censored curves, which count as "
        f"later than all others): {'; '.join(parts)}."
    )


SHAPES = PaperFigure(
    title=f"{TITLE}: shapes of single curves",
    caption="No figure of the paper, which names this as a limitation: every token has its own curve, and means hide "
    "its shape. Left: counts; right: cumulative fraction of curves. Above: where a curve reaches half of its own final "
    "value; below: where it is steepest. Censored curves count in the denominator.",
    claimed="Relying on the mean alone might oversimplify; the shape of each curve could be an important feature.",
    needs=("shapes",),
    chart=_chart,
    finding=_finding,
)
