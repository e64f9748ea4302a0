"""Exhibits of a report: a figure with the words about it, and the files that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.reports.charts.mpl import draw, to_png, to_svg
from tiltmeter.reports.tables import chart

FIGURES, TABLES = "figures", "tables"
"""Folders of a run."""


class ReportFigure(NamedTuple):
    """A figure of a report, and the words about it."""

    name: str
    """What its files are called."""
    title: str
    caption: str
    claimed: str
    """The paper's own description of what it found; empty for none."""
    finding: str
    """What this run found; where there is no chart, why there is none."""
    chart: Chart | None

    @property
    def files(self) -> tuple[str, ...]:
        """What it becomes, in the run's folder."""
        pictures = tuple(f"{FIGURES}/{self.name}.{kind}" for kind in ("png", "svg"))
        return (*pictures, *(f"{TABLES}/{self.name}.{kind}" for kind in ("csv", "tex"))) if self.chart else ()


def save_figure(folder: Path, exhibit: ReportFigure) -> bytes:
    """Write an exhibit's picture (PNG, SVG) and numbers (CSV, LaTeX) into a run's folder.

    Returns:
        The SVG; empty where there is no chart.

    Raises:
        TiltmeterError: the folder cannot be written.
    """
    if exhibit.chart is None:
        return b""
    figure = draw(exhibit.chart)
    svg = to_svg(figure)
    tables = chart.to_csv(exhibit.chart), chart.to_latex(exhibit.chart, exhibit.title)
    for name, data in zip(exhibit.files, (to_png(figure), svg, *tables), strict=True):
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        except OSError as error:
            place = folder / name
            raise TiltmeterError(
                f"cannot write figures into {place.parent} ({error.strerror}); choose another place."
            ) from error
    return svg
