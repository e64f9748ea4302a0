"""What several figures share: phrases, the line at the post's threshold, and sentences made of a claim's numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from tiltmeter.analysis.estimates import estimate
from tiltmeter.reports.charts.chart import Rule
from tiltmeter.studies.estimands import Estimands
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD
from tiltmeter.studies.results import NotMeasured, Results

TITLE = "Heimersheim & Mendel 2024"
SENSITIVE = (
    "Directions toward other real activations are more sensitive than random ones: they jump up at a lower angle and a "
    "lower distance."
)


def estimates_of(estimands: Estimands) -> Callable[[Results], str]:
    """The estimates that decide the claims about a figure, each with its own 95 % interval."""

    def finding(results: Results) -> str:
        try:
            deciding = [one for one in estimands(results) if one.decides]
            found = [estimate(results.with_documents(one), comparisons=1) for one in deciding]
        except NotMeasured as error:
            return error.reason
        least, most = (extreme(one.n for one in found) for extreme in (min, max))
        prompts = f"{least}" if least == most else f"{least} to {most}"
        parts = "; ".join(f"{one.label}: {one}" for one in found)
        return f"{parts[0].upper()}{parts[1:]} (95 % intervals, {prompts} prompts)."

    return finding


def threshold_rule() -> Rule:
    """A line at the post's threshold of KL."""
    return Rule(THRESHOLD, "y", f"KL {THRESHOLD:g}")


def median_crossing(found: Float[np.ndarray, " prompt"], units: str) -> str:
    """The median of crossings; `no crossing` where it lies among censored curves."""
    known = found[~np.isnan(found)]
    middle = float(np.median(known)) if len(known) else np.nan
    return f"{middle:.3g}{units}" if np.isfinite(middle) else "no crossing"
