"""What is measured for each figure of Lee & Heimersheim 2024."""

from __future__ import annotations

from tiltmeter.directions import DIRECTIONS
from tiltmeter.model import SplitModel
from tiltmeter.paths import Straight
from tiltmeter.plan import Sweep
from tiltmeter.positions import BosPolicy
from tiltmeter.sites import Site

PAIR_DISTANCE = 81.59
"""Mean L2 distance of two activations of GPT-2 small at `blocks.6.hook_resid_pre`, as the paper states it."""

LENGTHS = (0.0, 1.0, *(float(length) for length in range(11, 102, 10)))
"""The paper's lengths: 0, and the grid of its code up to the 101 of its figures."""

BASELINES = ("isotropic", "cov-random-mixture", "real-mixture")
"""What the paper compares directions of SAEs with."""


def figure_1(model: SplitModel, layer: int) -> Sweep:
    """Difference and mixture directions, of cov-random and real samples, and two isotropic ones.

    The paper perturbs every position. It does not say whether the boundary position entered its means and covariance;
    its 81.59 suggests that it did not, so here it is out of the statistics, and in everything else. Two departures from
    the published code, which follow the text: every token has a direction of its own, the same at all lengths (the code
    draws one for a batch, anew at each length); and the last position counts (the code drops it).
    """
    return _along(tuple(DIRECTIONS), model, layer)


def figure_3(model: SplitModel, layer: int) -> Sweep:
    """Errors of SAEs, and the baselines. Choices as for Figure 1."""
    return _along(("sae-error", *BASELINES), model, layer)


def _along(directions: tuple[str, ...], model: SplitModel, layer: int) -> Sweep:
    last = Site(model.n_layers - 1, "resid_post")
    return Sweep(
        site=Site(layer, "resid_pre").name,
        directions=directions,
        path=Straight(lengths=tuple(length / PAIR_DISTANCE for length in LENGTHS), unit="pair-distance"),
        readouts=("kl", f"l2@{last.name}"),
        positions="all",
        bos=BosPolicy(statistics="out", perturbation="in", average="in"),
    )
