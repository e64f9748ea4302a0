"""The lengths of papers, here: as published where the setting is the paper's own, elsewhere in pair distances.

A length says something only beside the distances of activations. Those of GPT-2 small are the paper's, so its lengths
are taken as they are; in another model, and on controls, whose activations can be a hundred times smaller, they are
the same fractions of the pair distance. Curves keep lengths in L2 and, in `path_unit`, the unit in which they were
given, from which whoever reads them learns which of the two was done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import xarray as xr

from tiltmeter.perturb.paths import Straight
from tiltmeter.studies.results import NotMeasured

Lengths = Literal["published", "scaled"]
"""Whether a paper's lengths are taken as they are, or scaled by the pair distance."""


def straight(lengths: Iterable[float], pair_distance: float, how: Lengths) -> Straight:
    """The straight path with a paper's lengths.

    Args:
        lengths: as published, L2.
        pair_distance: that of the paper's model and site, L2.
        how: `published`: these lengths. `scaled`: as many pair distances as they are in the paper.
    """
    if how == "published":
        return Straight(lengths=tuple(lengths), unit="absolute")
    return Straight(lengths=tuple(length / pair_distance for length in lengths), unit="pair-distance")


def are_published(curves: xr.Dataset) -> bool:
    """Whether the lengths of curves are a paper's own, not scaled.

    Raises:
        NotMeasured: they were given in another unit, or the curves do not say in which.
    """
    unit = curves.attrs.get("path_unit")
    if unit in ("absolute", "pair-distance"):
        return bool(unit == "absolute")
    given = "do not say in which unit their lengths were given" if unit is None else f"have lengths in the unit {unit}"
    raise NotMeasured(f"The curves {given}; measure them with this version, in L2 or in pair distances.")


def l2_of_one(curves: xr.Dataset, pair_distance: float) -> float:
    """The length here, in L2, that corresponds to a paper's length of 1.

    Args:
        curves: along a path of `straight`.
        pair_distance: as given to `straight`.

    Raises:
        NotMeasured: the lengths were given in another unit, or the curves do not say in which.
    """
    return 1.0 if are_published(curves) else float(curves.attrs["pair_distance"]) / pair_distance
