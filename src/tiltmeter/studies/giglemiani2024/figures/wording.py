"""Phrases that the captions and findings of several figures share."""

from __future__ import annotations

import numpy as np

from tiltmeter.analysis.estimates import estimate
from tiltmeter.analysis.shapes import Shape
from tiltmeter.reports.tables.format import with_interval
from tiltmeter.studies.estimands import mean
from tiltmeter.studies.giglemiani2024.curve_statistics import within_path
from tiltmeter.studies.giglemiani2024.estimands import ANYWHERE
from tiltmeter.studies.results import NotMeasured, Results

TITLE = "Giglemiani et al. 2024"
SETUP = (
    "The last of ten tokens is perturbed in an early layer. The readout is the L2 distance from the unperturbed "
    "activation after the last block."
)
ABSOLUTE_STEP = (
    "In the paper's own setting (--preset gpt2) a step is its 0.5 (L2), otherwise 1/100 of the pair distance, which is "
    "about as much in GPT-2 small."
)
PLATEAUS = tuple(f"plateaus-{base}" for base in ("real", "cov-random", "synthetic-baseline", "synthetic-structured"))
"""The experiments with paths that start at each type of activation."""


def mean_step(results: Results, shape: Shape) -> str:
    """The mean step within the path, with its interval; `none` where more than half of the curves are censored."""
    if np.isnan(shape.value).all():
        return "none"
    try:
        steps = within_path(shape)
    except NotMeasured:
        return "none"
    found = estimate(results.with_documents(mean("", steps, ANYWHERE)), 1)
    return with_interval(found.value, found.low, found.high)
