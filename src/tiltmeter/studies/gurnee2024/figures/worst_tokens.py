"""Figure 11: the tokens with the largest mean KL gap."""

from __future__ import annotations

from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Panel
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.gurnee2024.figures.wording import GAP, TITLE
from tiltmeter.studies.gurnee2024.per_token import study_layer
from tiltmeter.studies.gurnee2024.top_tokens import FEWEST_OCCURRENCES, TOP, worst
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


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
