"""Directions toward points between several activations, or in their plane: `blend:0.5*real+0.5*cov-random`.

The vector is Σ w (sample - x). If the weights sum to one, it leads from x to a point between the samples: a triangle of
weights is the sensitivity map of Heimersheim & Mendel (2024, section 3). With the path `substitute` and two free
weights, it spans the plane through x and two samples (section 1). Blends of the same sources draw the same samples,
whatever their weights, so that points of one map are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tiltmeter.perturb.directions import difference
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Context, Source


@dataclass(frozen=True)
class Blend:
    """A weighted sum of w (sample - x) over several samples."""

    terms: tuple[tuple[float, str], ...]
    """Weights and source names. Each term has its own sample."""
    sources: Mapping[str, Source]

    def vector(self, context: Context) -> Tensor:
        """Return the weighted sum of differences, or zero where it is no larger than rounding error."""
        x = context.x
        total = torch.zeros_like(x)
        for (weight, _), sample in zip(self.terms, self._samples(context), strict=True):
            total = total + weight * (sample.to(x) - x)
        return difference(x + total, x)

    def _samples(self, context: Context) -> list[Tensor]:
        """Draw a different sample for each term. Each source has its own address, so their draws are independent."""
        names = [name for _, name in self.terms]
        drawn = {
            name: iter(self.sources[name].sample(_at(context, name), names.count(name)))
            for name in dict.fromkeys(names)
        }
        return [next(drawn[name]) for name in names]


def _at(context: Context, source: str) -> Context:
    address = context.address
    return replace(context, address=address._replace(direction=f"{address.direction}/{source}"))


def build_blend(name: DirectionName, statistics: SiteStatistics) -> Blend:
    """Build the blend with this name."""
    sources: dict[str, Source] = {
        "real": statistics.real,
        "cov-random": statistics.gaussian,
        "isotropic": statistics.isotropic,
    }
    return Blend(name.terms, sources)
