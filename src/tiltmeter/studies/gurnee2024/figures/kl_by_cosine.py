"""Riggs' comment: KL against cosine with x, for random points of x's norm and for SAEs of one layer."""

from __future__ import annotations

import numpy as np

from tiltmeter.analysis.curves import documents_of
from tiltmeter.analysis.estimates import BELOW_ONE
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel, Points
from tiltmeter.reports.charts.styles import style, styles
from tiltmeter.studies.gurnee2024.figures.wording import BANDS, INTERVALS, KL, TITLE, alone
from tiltmeter.studies.gurnee2024.replications import beside_random_at, kl_of, mean_cosine
from tiltmeter.studies.results import Results, saes_by_kind
from tiltmeter.studies.study import PaperFigure


def _chart(results: Results) -> Chart:
    sphere = results["cosine"]
    found = mean_interval(
        sphere.kl.sel(direction="isotropic").transpose("step", "sequence").to_numpy(), documents=documents_of(sphere)
    )
    x = np.cos(np.deg2rad(sphere.step.to_numpy()))
    marks: list[Line | Points] = [
        Line("random, norm of x", x, found.mean, style("theta-random-true-norm"), found.low, found.high)
    ]
    if "saes" in results:
        marks += _saes(results)
    site = sphere.attrs["site"]
    return Chart(((Panel("", Axis(f"cosine with x at {site}"), Axis(KL), tuple(marks)),),))


def _saes(results: Results) -> list[Points]:
    """A dot for each SAE's norm-corrected output, colored by the SAE's kind."""
    curves = results["saes"]
    looks = styles([str(name) for name in curves.direction.values])
    marks = []
    for kind, saes in saes_by_kind(curves).items():
        names = [f"sae-norm-corrected:{sae}" for sae in saes]
        x = np.array([mean_cosine(curves, name) for name in names])
        kl = mean_interval(np.stack([kl_of(curves, name) for name in names]), documents=documents_of(curves))
        look, label = looks[f"sae-error:{saes[-1]}"], f"{kind} SAEs, norm-corrected"
        marks.append(Points(label, x, kl.mean, look, kl.low, kl.high, tuple(saes)))
    return marks


def _finding(results: Results) -> str:
    """The SAEs with the lowest and the highest cosine, relative to random points of equal norm and angle."""
    low, high = (alone(results, beside_random_at(which, BELOW_ONE)(results)[0]) for which in (0, -1))
    return f"{low.label}: {low}. {high.label}: {high}. {INTERVALS}"


RIGGS = PaperFigure(
    title=f"{TITLE}, Riggs' comment: KL against cosine",
    caption="Mean KL of random points with the norm of x, by their cosine with x, and of the outputs of the layer's "
    f"SAEs, scaled to the norm of x, at their mean cosine. {BANDS}",
    claimed="The comment's alternative hypothesis: SAEs are better than random points at low cosine, and worse at "
    "high cosine.",
    needs=("cosine", "saes"),
    chart=_chart,
    finding=_finding,
)
