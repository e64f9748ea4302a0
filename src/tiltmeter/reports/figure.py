"""A figure of a report, with its title, caption and finding, and the files it is saved as."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts.chart import Chart
from tiltmeter.reports.tables import chart
from tiltmeter.runs.extras import require

FIGURES, TABLES = "figures", "tables"
"""Subfolders of a run."""


class ReportFigure(NamedTuple):
    """A figure of a report, with its title, caption and finding."""

    name: str
    """Stem of its file names."""
    title: str
    caption: str
    claimed: str
    """The paper's description of its result; empty if the figure is not from a paper."""
    finding: str
    """This run's result; if there is no chart, the reason."""
    chart: Chart | None

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of its files in the run's folder."""
        pictures = tuple(f"{FIGURES}/{self.name}.{kind}" for kind in ("png", "svg", "pdf"))
        return (*pictures, *(f"{TABLES}/{self.name}.{kind}" for kind in ("csv", "tex"))) if self.chart else ()


def save_figure(folder: Path, figure: ReportFigure) -> bytes:
    """Write a figure's picture (PNG, SVG, PDF) and numbers (CSV, LaTeX) into a run's folder.

    Returns:
        The SVG; empty if there is no chart.

    Raises:
        TiltmeterError: matplotlib is not installed; the folder cannot be written.
    """
    if figure.chart is None:
        return b""
    require("matplotlib", "report", "A figure")
    from tiltmeter.reports.charts import mpl

    drawing = mpl.draw(figure.chart)
    svg = mpl.to_svg(drawing)
    tables = chart.to_csv(figure.chart), chart.to_latex(figure.chart, figure.title)
    for name, data in zip(figure.files, (mpl.to_png(drawing), svg, mpl.to_pdf(drawing), *tables), strict=True):
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        except OSError as error:
            place = folder / name
            raise TiltmeterError(
                f"cannot write figures into {place.parent} ({error.strerror}); choose another place."
            ) from error
    return svg
