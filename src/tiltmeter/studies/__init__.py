"""Studies: one folder per paper, with the same files in each.

`experiments.py`: what is measured. `figures/`: each figure, with its caption, chart and finding. `claims.py`: what the
paper claims. `estimands.py`: the numbers that the claims are about.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.plugins import Registry
from tiltmeter.studies import giglemiani2024, gurnee2024, heimersheim2024, lee2024
from tiltmeter.studies.study import Study

_OWN = {study.name: study for study in (heimersheim2024.STUDY, gurnee2024.STUDY, lee2024.STUDY, giglemiani2024.STUDY)}

STUDIES: MutableMapping[str, Study] = Registry("tiltmeter.studies", _OWN)
"""All studies, those of other packages among them (`tiltmeter.studies`)."""


def find_study(name: str) -> Study:
    """Find a study by name.

    Raises:
        TiltmeterError: no study has this name.
    """
    if name not in STUDIES:
        raise TiltmeterError(f"{name!r} is not a study; choose from {', '.join(STUDIES)}, or all.")
    return STUDIES[name]


def check_figures(study: Study, figures: tuple[str, ...]) -> None:
    """Refuse figures that a study does not have.

    Raises:
        TiltmeterError: a figure does not exist; the first one is named.
    """
    for figure in figures:
        if figure not in study.figures:
            raise TiltmeterError(f"{study.name} has no figure {figure!r}; choose from {', '.join(study.figures)}.")
