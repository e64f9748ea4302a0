"""What a run found in the figures of Heimersheim & Mendel 2024, in a sentence or two each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from tiltmeter.analysis.estimates import estimate
from tiltmeter.analysis.shapes import censored_last, separation_auc
from tiltmeter.perturb.names import split_draw
from tiltmeter.reports.tables.format import three_digits
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD, corner, crossings, triangle_times
from tiltmeter.studies.heimersheim2024.estimands import Measures
from tiltmeter.studies.heimersheim2024.experiments import RANDOM, REAL
from tiltmeter.studies.heimersheim2024.plots_maps import CORNERS, on_plane
from tiltmeter.studies.results import NotMeasured, Results

Find = Callable[[Results], str]

PARTS = (0.25, 0.5, 0.75)
"""Of the way to another activation."""


def told(measures: Measures) -> Find:
    """The numbers that the claims about a figure rest on, with their own 95 % intervals."""

    def find(results: Results) -> str:
        try:
            found = [estimate(quantity, together=1) for quantity in measures(results)]
        except NotMeasured as error:
            return str(error)
        least, most = (extreme(finding.n for finding in found) for extreme in (min, max))
        prompts = f"{least}" if least == most else f"{least} to {most}"
        parts = "; ".join(f"{finding.what}: {finding}" for finding in found)
        return f"{parts[0].upper()}{parts[1:]} (95 % intervals, {prompts} prompts)."

    return find


def histogram(results: Results) -> str:
    """Medians of the crossings, and how far apart the two kinds are over all prompts."""
    parts = []
    for mode, units in (("sphere", "°"), ("straight", " ‖x‖")):
        curves = results[mode]
        medians = [f"{_median(censored_last(crossings(curves, name)), units)} along {name}" for name in (REAL, RANDOM)]
        auc = separation_auc(crossings(curves, REAL), crossings(curves, RANDOM))
        parts.append(
            f"In {mode} mode KL passes {THRESHOLD:g} at a median of {', '.join(medians)}; the area under the ROC curve "
            f"of all prompts together is {auc:.2f}."
        )
    return " ".join(parts)


def one_prompt(results: Results) -> str:
    """How far apart the two kinds of direction are, prompt by prompt."""
    found = {mode: _apart(results[f"{mode}-draws"]) for mode in ("straight", "sphere")}
    parts = [f"{mode} {', '.join(f'{auc:.2f}' for auc in aucs)}" for mode, aucs in found.items()]
    return (
        f"Area under the ROC curve of the crossings of KL {THRESHOLD:g}, real before random directions, prompt by "
        f"prompt: {'; '.join(parts)}."
    )


def triangles(results: Results) -> str:
    """Median angles at the corners and in the middle, and the highest of each map."""
    parts = []
    for experiment, names in CORNERS.items():
        found = triangle_times(results[experiment], "absolute")
        corners = [f"{name} {_median(found[corner(number)], '°')}" for number, name in enumerate(names)]
        centre = min(found, key=lambda weights: max(weights) - min(weights))
        parts.append(f"{', '.join(corners)}, middle {_median(found[centre], '°')}")
    return f"Median angle at KL {THRESHOLD:g}, at the corners: {'; '.join(parts)}."


def both(*finds: Find) -> Find:
    """One sentence after the other."""
    return lambda results: " ".join(find(results) for find in finds)


def plane(results: Results) -> str:
    """KL on the way to another activation, as a part of that at its end."""
    curves = results["plane"]
    grids = [on_plane(curves, "kl", number) for number in range(curves.sizes["sequence"])]
    weights, zero = grids[0].weights, int(np.argmin(np.abs(grids[0].weights)))
    ways = np.stack([way for grid in grids for way in (grid.values[zero], grid.values[:, zero])])
    mean = np.interp((*PARTS, 1.0), weights, np.nanmean(ways, axis=0))
    if not mean[-1] > 0:
        return f"KL is {three_digits(float(mean[-1]))} at the other activation: there is nothing to compare with."
    shares = ", ".join(f"{100 * part:.0f} %" for part in mean[:-1] / mean[-1])
    return (
        f"A quarter, half and three quarters of the way to another activation, KL is {shares} of the {mean[-1]:.3g} "
        f"nats that it is there: means of both ways, {len(grids)} {'prompt' if len(grids) == 1 else 'prompts'}."
    )


def _apart(curves: xr.Dataset) -> list[float]:
    """The area under the ROC curve of each prompt."""
    names = [str(name) for name in curves.direction.values]
    real, random = (
        np.stack([crossings(curves, name).value_or_inf for name in names if split_draw(name).name == kind])
        for kind in (REAL, RANDOM)
    )
    return [separation_auc(real[:, number], random[:, number]) for number in range(curves.sizes["sequence"])]


def _median(found: np.ndarray, units: str) -> str:
    """The median of crossings; where it lies among those that are not reached, that."""
    known = found[~np.isnan(found)]
    middle = float(np.median(known)) if len(known) else np.nan
    return f"{middle:.3g}{units}" if np.isfinite(middle) else "no crossing"
