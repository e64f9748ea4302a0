"""Studies: one folder per paper, the same files inside.

`sweeps.py` says what is measured, `figures.py` how it is drawn and what it says, `claims.py` what the paper claims.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.errors import TiltmeterError
from tiltmeter.studies import lee2024
from tiltmeter.studies.study import Study

STUDIES: Mapping[str, Study] = {study.name: study for study in (lee2024.STUDY,)}


def find_study(name: str) -> Study:
    """The study of this name.

    Raises:
        TiltmeterError: there is none.
    """
    if name not in STUDIES:
        raise TiltmeterError(f"{name!r} is not a study; choose from {', '.join(STUDIES)}.")
    return STUDIES[name]


def check_figures(study: Study, figures: tuple[str, ...]) -> None:
    """Refuse figures that a study does not have.

    Raises:
        TiltmeterError: the first that there is not.
    """
    for figure in figures:
        if figure not in study.figures:
            raise TiltmeterError(f"{study.name} has no figure {figure!r}; choose from {', '.join(study.figures)}.")
