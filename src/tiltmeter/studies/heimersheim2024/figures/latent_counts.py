"""Footnote 1: how many latents of an SAE random and real activations turn on."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.charts.chart import Axis, Chart, Panel
from tiltmeter.reports.charts.shapes import cumulative, histograms
from tiltmeter.studies.heimersheim2024.figures.wording import TITLE
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


def _chart(results: Results) -> Chart:
    counts = results["latents"]
    found = {str(name): _log(counts.active.sel(input=name).values) for name in counts.input.values}
    axis = Axis("active latents, log10")
    left = Panel("", axis, Axis("prompts"), histograms(found))
    right = Panel("", axis, Axis("fraction of prompts", limits=(0.0, 1.02)), cumulative(found))
    return Chart(((left, right),), share=())


def _log(active: np.ndarray) -> Shape:
    """Of none at all: no logarithm, in no bin."""
    none = active == 0
    return Shape(np.where(none, np.nan, np.log10(np.where(none, 1, active))), np.zeros_like(none))


def _finding(results: Results) -> str:
    counts = results["latents"]
    parts = [f"{name} {_range(counts.active.sel(input=name))}" for name in counts.input.values]
    return (
        f"Active latents of {counts.attrs['latents']} ({counts.attrs['sae']}), {counts.sizes['sequence']} prompts: "
        f"{'; '.join(parts)}."
    )


def _range(active: xr.DataArray) -> str:
    least, most, middle = int(active.min()), int(active.max()), float(active.median())
    log = np.log10(active.values[active.values > 0])
    spread = f", standard deviation of log10 {log.std(ddof=1):.2g}" if len(log) > 1 else ""
    return f"{least} to {most}, median {middle:g}{spread}"


LATENTS = PaperFigure(
    title=f"{TITLE}, footnote 1: latents that random directions activate",
    caption="Latents above zero of an SAE at the site, for the prompt's own activation (real), a sample with the mean "
    "and covariance of such activations (cov-random), and the direction from the one to the other "
    "(cov-random-difference). Left: counts of prompts; right: cumulative fraction. Inputs that activate no latent are "
    "in no bin.",
    claimed="Inputting a random direction into an SAE activates between 10 and 20,000 features, lognormal with a peak "
    "around 30; but that is using the encoder, and the post is not sure that one should.",
    needs=("latents",),
    chart=_chart,
    finding=_finding,
)
