"""What several figures share: phrases, the line at the post's threshold, and sentences made of a claim's numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from tiltmeter.analysis.estimates import estimate
from tiltmeter.reports.charts.chart import Rule
from tiltmeter.studies.estimands import Estimands
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD, predicted_later
from tiltmeter.studies.heimersheim2024.experiments import RANDOM
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


def both(*parts: Callable[[Results], str]) -> Callable[[Results], str]:
    """One finding after the other."""
    return lambda results: " ".join(part(results) for part in parts)


def continuations(mode: str) -> Callable[[Results], str]:
    """Where small steps predict that KL passes the threshold, beside where it does, on real and on random bases."""

    def finding(results: Results) -> str:
        bases = {"real base": mode, "random base": f"{mode}-random-base"}
        parts = [f"{base} {_median_later(results[name])}" for base, name in bases.items()]
        return (
            f"Distance at which the smallest steps predict KL {THRESHOLD:g} ÷ that at which KL passes it, median over "
            f"prompts (1 without a plateau, more with one): {', '.join(parts)}."
        )

    return finding


def _median_later(curves: xr.Dataset) -> str:
    later = predicted_later(curves, RANDOM)
    known = later[~np.isnan(later)]
    if not len(known):
        return "not known (the smallest steps are not quadratic, or no curve passes)"
    return f"{np.median(known):.2f}× ({len(known)} of {len(later)} prompts)"


def threshold_rule() -> Rule:
    """A line at the post's threshold of KL."""
    return Rule(THRESHOLD, "y", f"KL {THRESHOLD:g}")


def median_crossing(found: Float[np.ndarray, " prompt"], units: str) -> str:
    """The median of crossings; `no crossing` where it lies among censored curves."""
    known = found[~np.isnan(found)]
    middle = float(np.median(known)) if len(known) else np.nan
    return f"{middle:.3g}{units}" if np.isfinite(middle) else "no crossing"
