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
    """The length at which single tokens' curves reach half of their own end, and how many are steepest at the end."""
    curves = results["shapes"]
    table = shape_table(curves, "kl", fraction=0.5, statistics=("max_slope",))
    rows = shape_summary(table).query("statistic == 'relative_crossing_at'")
    parts = [
        f"{row.direction} {three_digits(row.median)} ({row.censored / max(row.n + row.censored, 1):.1%})"
        for row in rows.itertuples()
    ]
    last = table.max_slope_at.eq(float(curves.step.max())).groupby(table.direction, sort=False).mean()
    return (
        "Median length at which single tokens' curves reach half of their final value (censored curves, which count as "
        f"later than all others): {'; '.join(parts)}. Curves that are steepest in the last step of the path, and may "
        f"be steeper beyond: {'; '.join(f'{name} {part:.1%}' for name, part in last.items())}."
    )


SHAPES = PaperFigure(
    title=f"{TITLE}: shapes of single curves",
    caption="No figure of the paper, which names this as a limitation: every token has its own curve, and means hide "
    "its shape. Cumulative fraction of curves by the length at which a curve reaches half of its own final value "
    "(left), and at which it is steepest (right). Those in the jump at the end of the path are steepest in its last "
    "step, and may be steeper beyond. Curves without such a length (censored) count in the denominator; their numbers, "
    "if there are any, stand above the panel, in the order of the legend.",
    claimed="Relying on the mean alone might oversimplify; the shape of each curve could be an important feature.",
    needs=("shapes",),
    chart=_chart,
    finding=_finding,
)
