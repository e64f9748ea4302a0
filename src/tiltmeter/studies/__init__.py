"""Studies: one folder per paper, the same files inside.

A study composes: `sweeps.py` says what is measured for each figure, `figures.py` how it is drawn and what it says.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.errors import TiltmeterError
from tiltmeter.studies import lee2024
from tiltmeter.studies.study import Study, StudyFigure

STUDIES: Mapping[str, Study] = {study.name: study for study in (lee2024.STUDY,)}


def find_figure(study: str, figure: str) -> tuple[Study, StudyFigure]:
    """The study and the figure of these names.

    Raises:
        TiltmeterError: there is no such study, or no such figure in it.
    """
    if study not in STUDIES:
        raise TiltmeterError(f"{study!r} is not a study; choose from {', '.join(STUDIES)}.")
    figures = STUDIES[study].figures
    if figure not in figures:
        raise TiltmeterError(f"{study} has no figure {figure!r}; choose from {', '.join(figures)}.")
    return STUDIES[study], figures[figure]
