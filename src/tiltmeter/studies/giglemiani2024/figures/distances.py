"""KS distance between the steps of each type of activation and those of real ones, for every statistic."""

from __future__ import annotations

import numpy as np

from tiltmeter.analysis.estimates import estimate
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Panel
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.comparisons import too_few
from tiltmeter.studies.giglemiani2024.curve_statistics import STATISTICS, ks_from_real, samples
from tiltmeter.studies.giglemiani2024.estimands import ANYWHERE, distance
from tiltmeter.studies.giglemiani2024.figures.wording import PLATEAUS, TITLE
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


def _chart(results: Results) -> Chart:
    # The interval is Student's, with the bootstrap's standard error. KS distances are never negative, so between equal
    # distributions those of bootstrap samples lie above the one they are drawn around, and BCa fails.
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name, statistic in STATISTICS.items():
        for kind in samples(results, name):
            if kind != "real":
                one = estimate(results.with_documents(distance(results, name, kind, ANYWHERE)), 1)
                found.setdefault(kind, {})[statistic.label] = (one.value, max(one.joint_low, 0.0), one.joint_high)
    bars = []
    for kind, by_label in found.items():
        y, low, high = (np.array(column) for column in zip(*by_label.values(), strict=True))
        bars.append(Bars(kind, tuple(by_label), y, style(kind), low, high))
    return Chart(((Panel("", Axis(""), Axis("KS distance from real activations"), tuple(bars)),),))


def _finding(results: Results) -> str:
    """Which type is nearest to real activations by which statistics, and how near."""
    if few := too_few(results["absolute"]):
        return few
    nearest: dict[str, list[str]] = {}
    for name, statistic in STATISTICS.items():
        if far := ks_from_real(samples(results, name)):
            kind = min(far, key=far.__getitem__)
            nearest.setdefault(kind, []).append(f"{statistic.label} {far[kind]:.2f}")
    orders = [f"{kind} by {len(found)} of {len(STATISTICS)} ({', '.join(found)})" for kind, found in nearest.items()]
    return f"Nearest to real activations, by KS distance: {'; '.join(orders)}."


KS_DISTANCES = PaperFigure(
    title=f"{TITLE}: distance of each type from real activations",
    caption="Kolmogorov-Smirnov distance between the steps of each type and those of real activations: the largest "
    "vertical gap between their cumulative distributions in the other figures. It is 0 for equal distributions (two "
    "samples of 500 from the same distribution are about 0.05 apart) and 1 for disjoint ones. Whiskers: 95 % "
    "intervals (Student's t, with the standard error of a bootstrap over sequences).",
    claimed="By MS and AUC steps, synthetic-structured is nearest to real, then synthetic-baseline, then random; in "
    "the authors' notebooks, SAE reconstructions are almost indistinguishable from real activations.",
    needs=("absolute", "relative", *PLATEAUS),
    chart=_chart,
    finding=_finding,
)
