"""The columns of a study: the model, and every control with its seed. Each has a folder in the study's run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tiltmeter.studies.control import CONTROLS
from tiltmeter.studies.study import Size

MODEL = "model"

CHOICES: dict[str, tuple[str, ...]] = {**{name: (name,) for name in CONTROLS}, "both": tuple(CONTROLS), "none": ()}
"""What `--control` can be, and the controls that it means."""

BY_SIZE: dict[Size, str] = {"quick": "initialised", "default": "both", "paper": "both"}
"""What `--control` is if it is not given. A first look should not take half as long again for a second control."""


class ControlColumn(NamedTuple):
    """A control, of one seed."""

    control: str
    """`initialised` or `shuffled`."""
    seed: int

    @property
    def name(self) -> str:
        """Its name in `experiments.json`, which is also its folder."""
        return f"control/{self.control}-{self.seed}"


def control_columns(controls: Sequence[str], first: int, count: int) -> tuple[ControlColumn, ...]:
    """The columns of these controls: every control with the first seed, then with the next, and so on."""
    return tuple(ControlColumn(control, seed) for seed in range(first, first + count) for control in controls)


def stored_columns(names: Iterable[str]) -> dict[str, list[ControlColumn]]:
    """Which columns each control has, of the names in `experiments.json`; controls in the order of `CONTROLS`."""
    found: dict[str, list[ControlColumn]] = {}
    for name in names:
        control, _, seed = name.removeprefix("control/").rpartition("-")
        if control in CONTROLS and seed.isdigit():
            found.setdefault(control, []).append(ControlColumn(control, int(seed)))
    return {control: sorted(found[control]) for control in CONTROLS if control in found}
