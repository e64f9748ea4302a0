"""A line of means over sequences, with a band."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tiltmeter.analysis.clusters import Documents
from tiltmeter.analysis.intervals import mean_interval
from tiltmeter.reports.charts.chart import Line
from tiltmeter.reports.charts.styles import Style


def mean_line(name: str, values: Float[np.ndarray, "sequence place"], look: Style, documents: Documents | None) -> Line:
    """Mean over sequences, of these documents, at each place (numbered from 0), with its 95 % interval."""
    found = mean_interval(values.T, documents=documents)
    return Line(name, np.arange(values.shape[1], dtype=np.float64), found.mean, look, found.low, found.high)
