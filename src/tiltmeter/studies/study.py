"""What a study is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from tiltmeter.model import SplitModel
from tiltmeter.plan import Sweep


class StudyFigure(NamedTuple):
    """One figure of a paper: what is measured for it, how it is drawn, what it says."""

    title: str
    caption: str
    sweep: Callable[[SplitModel, int], Sweep]
    """The sweep at a layer of a model, in the paper's words; SAEs are filled in."""
    draw: Callable[[xr.Dataset, pd.DataFrame], Figure]
    finding: Callable[[xr.Dataset], str]
    """What this run found, in a sentence or two."""


class Study(NamedTuple):
    """One paper."""

    name: str
    citation: str
    figures: Mapping[str, StudyFigure]
