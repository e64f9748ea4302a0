"""Figure 8: KL of SAE(x) beside that of many random points, for single tokens."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tiltmeter.reports.charts.chart import Axis, Chart, Histogram, Panel, Rule, in_rows
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.gurnee2024.experiments import DRAWN_TOKEN
from tiltmeter.studies.gurnee2024.figures.wording import COLUMNS, INTERVALS, KL, TITLE, alone
from tiltmeter.studies.gurnee2024.gap import FAR, TYPICAL, drawn, typical_and_far
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.study import PaperFigure

SHOWN = 5
"""Tokens that have a panel of their own."""
BINS = 25


def _chart(results: Results) -> Chart:
    """A few tokens, evenly spaced in the order of their deviations, and the deviations of all tokens."""
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


def _finding(results: Results) -> str:
    found = drawn(results)
    near, far = (alone(results, one) for one in typical_and_far(results))
    return (
        f"{len(found.sae)} tokens with {found.random.shape[1]} random points each. Fraction of tokens whose SAE(x) is "
        f"within {TYPICAL:g} standard deviations of the mean of its random points: {near}; more than {FAR:g} above it: "
        f"{far}. {INTERVALS}"
    )


FIGURE_8 = PaperFigure(
    title=f"{TITLE}, Figure 8: many random points for one token",
    caption="KL of SAE(x) (line) and of many random points at the same distance from x (histogram) if only token "
    f"{DRAWN_TOKEN} is replaced. The deviation of SAE(x) is its distance above the mean of its random points, in their "
    f"standard deviations. {SHOWN} tokens are shown, evenly spaced in the order of their deviations; last panel: "
    "deviations of all tokens (below -5 and above 20 in the outer bins).",
    claimed="The gap has a high variance: many SAE(x) are around the expectation, and many are very bad.",
    needs=("draws",),
    chart=_chart,
    finding=_finding,
)
