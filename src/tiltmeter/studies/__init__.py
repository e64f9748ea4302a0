"""Studies: one folder per paper, the same files inside.

`sweeps.py` says what is measured, `exhibits.py` what each figure is, `figures.py` how it is drawn, `findings.py` what a
run found in it, `claims.py` what the paper claims, `quantities.py` the numbers that claims are about.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.errors import TiltmeterError
from tiltmeter.studies import giglemiani2024, gurnee2024, heimersheim2024, lee2024
from tiltmeter.studies.study import Study

STUDIES: Mapping[str, Study] = {
    study.name: study for study in (heimersheim2024.STUDY, gurnee2024.STUDY, lee2024.STUDY, giglemiani2024.STUDY)
}


def find_study(name: str) -> Study:
    """The study of this name.

    Raises:
        TiltmeterError: there is none.
    """
    if name not in STUDIES:
        raise TiltmeterError(f"{name!r} is not a study; choose from {', '.join(STUDIES)}, or all.")
    return STUDIES[name]


def check_figures(study: Study, figures: tuple[str, ...]) -> None:
    """Refuse figures that a study does not have.

    Raises:
        TiltmeterError: the first that there is not.
    """
    for figure in figures:
        if figure not in study.figures:
            raise TiltmeterError(f"{study.name} has no figure {figure!r}; choose from {', '.join(study.figures)}.")
