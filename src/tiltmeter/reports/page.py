"""The report of a run: one self-contained HTML page with interactive figures, which makes no network requests.

plotly.js is in the page once, and figures are JSON. The page's content security policy allows only these scripts and no
request, since a report is passed on and opened anywhere; each figure is also there as a picture, for printing and for
readers without JavaScript. Names given by users or files are escaped.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tiltmeter.analysis.curves import readout_names
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.answer import LONGEST, VERDICTS, Answer
from tiltmeter.reports.charts.curves import axis_label
from tiltmeter.reports.charts.plotly import to_plotly
from tiltmeter.reports.charts.plotly_grid import least_width
from tiltmeter.reports.claims_section import claims_section
from tiltmeter.reports.figure import ReportFigure, save_figure
from tiltmeter.reports.tables import claims as claims_table
from tiltmeter.reports.tables.claim_text import ClaimRow
from tiltmeter.reports.tables.format import with_interval
from tiltmeter.reports.tables.wide import WideTable, wide_tables

SYMBOLS = {"supported": "✓", "supported in part": "(✓)", "contradicted": "✗", "inconclusive": "?", "not tested": "–"}
"""Symbols of verdicts, so that they do not depend on colour."""

OPTIONAL = ("published", "initialised", "shuffled", "note")
"""Columns of the tables of claims that are left out if no claim has anything there."""


class SweepNumbers(NamedTuple):
    """Curves and summary of a sweep, for the tables of its report."""

    curves: xr.Dataset
    table: pd.DataFrame
    """Summary of the curves, with 95 % intervals."""


class _Section(NamedTuple):
    title: str
    rows: list[tuple[str, str]]


class _PageFigure(NamedTuple):
    """A figure as the template needs it."""

    id: str
    name: str
    title: str
    short: str
    """The title without what all titles of the page begin with."""
    caption: str
    claimed: str
    finding: str
    files: tuple[str, ...]
    image: str
    json: str
    width: int
    tables: list[WideTable]


def write_report(
    folder: Path,
    title: str,
    summary: Sequence[str],
    figures: Sequence[ReportFigure],
    manifest: Mapping[str, Any],
    *,
    claims: Sequence[ClaimRow] = (),
    answers: Sequence[Answer] = (),
    notes: Sequence[str] = (),
    numbers: SweepNumbers | None = None,
) -> Path:
    """Write `report.html` into a run's folder, with `figures/`, `tables/` and tables of the claims; return its path.

    Args:
        folder: the run.
        title: heading of the page.
        summary: what was run and on what, in three or four sentences.
        figures: the figures, in order.
        manifest: plain JSON; its `identity`, `record` and `created` are shown as tables, and all of it at the end.
        claims: rows of the tables of claims.
        answers: what came of them, which is said first.
        notes: what a reader must know to interpret the page.
        numbers: the curves of a sweep, for its tables.

    Raises:
        TiltmeterError: the folder cannot be written.
    """
    begun = _beginning([figure.title for figure in figures])
    shown = [_page_figure(figure, figure.title[begun:], save_figure(folder, figure)) for figure in figures]
    page = _page(title, summary, shown, manifest, claims, answers, notes, numbers)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if claims:
            (folder / "claims.csv").write_bytes(claims_table.to_csv(claims))
            (folder / "claims.tex").write_bytes(claims_table.to_latex(claims, title))
        (folder / "report.html").write_text(page, "utf-8")
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise TiltmeterError(f"cannot write the report ({reason}); choose another place.") from error
    return folder / "report.html"


def headline(table: pd.DataFrame, readout: str, columns: int = 4) -> pd.DataFrame:
    """A few steps of one readout as text: mean and 95 % interval.

    Args:
        table: a summary.
        readout: which readout.
        columns: how many steps, evenly spread over the nonzero ones and including the last.

    Returns:
        A row per direction, a column per step.
    """
    rows = table[table.readout == readout]
    steps = np.array([step for step in rows.step.unique() if step != 0] or [0.0])
    chosen = steps[np.unique(np.linspace(0, len(steps), min(columns, len(steps)) + 1)[1:].round().astype(int)) - 1]
    rows = rows[rows.step.isin(chosen)]
    rows = rows.assign(cell=[with_interval(row.mean, row.low, row.high) for row in rows.itertuples(index=False)])
    cells = rows.pivot_table("cell", "direction", "step", aggfunc="first", sort=False)
    return cells.rename(columns="{:.4g}".format)


def _beginning(titles: Sequence[str]) -> int:
    """How many characters all titles begin with, up to a comma or colon: the work that all figures are of."""
    ends = [found.start() for found in re.finditer("[,:] ", titles[0])] if len(titles) > 1 else []
    common = (
        end
        for end in reversed(ends)
        if all(re.match("[,:] ", title[end:]) and title[:end] == titles[0][:end] for title in titles)
    )
    return next((end + 2 for end in common), 0)


def _page_figure(figure: ReportFigure, short: str, svg: bytes) -> _PageFigure:
    words = (figure.name, figure.title, short, figure.caption, figure.claimed, figure.finding, figure.files)
    place = figure.name if figure.name.startswith("figure-") else f"figure-{figure.name}"
    if figure.chart is None:
        return _PageFigure(place, *words, "", "", 0, [])
    image = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    chart, tables = _json(to_plotly(figure.chart)), wide_tables(figure.chart)
    return _PageFigure(place, *words, image, chart, least_width(figure.chart), tables)


def _json(value: Any) -> Markup:
    """JSON in ASCII in which an HTML parser finds no tag, comment or entity."""
    plain = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(plain.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"))


def _page(
    title: str,
    summary: Sequence[str],
    figures: Sequence[_PageFigure],
    manifest: Mapping[str, Any],
    claims: Sequence[ClaimRow],
    answers: Sequence[Answer],
    notes: Sequence[str],
    numbers: SweepNumbers | None,
) -> str:
    drawn = any(figure.json for figure in figures)
    scripts = [_script(_own("claims.js"))] if claims else []
    scripts += [_script(_plotly()), _script(_own("report.js"))] if drawn else []
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            summary=summary,
            notes=notes,
            claims=claims_section(claims),
            answers=answers,
            longest=LONGEST,
            places={figure.name: figure for figure in figures},
            verdicts=[word for word in VERDICTS if any(row.verdict == word for row in claims)],
            pictures={figure.name: figure for figure in figures if figure.image},
            told={name for row in claims for name in OPTIONAL if getattr(row, name)},
            several=len({row.study for row in claims}) > 1,
            symbols=SYMBOLS,
            figures=figures,
            sections=_sections(dict(numbers.curves.attrs) if numbers else {}, manifest),
            manifest=json.dumps(manifest, indent=2, ensure_ascii=False),
            scripts=scripts,
            policy=_policy(scripts),
            **_sweep_variables(numbers),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tiltmeter.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _code
    return environment


def _code(words: str) -> Markup:
    """Escape text, and set what is between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(words))))


def _plotly() -> str:
    """plotly.js 4.1.1, as the Python package plotly 7.1.0 has it: 5 MB of a package of 64."""
    packed = resources.files("tiltmeter.reports") / "templates" / "plotly.min.js.gz"
    return gzip.decompress(packed.read_bytes()).decode()


def script_size() -> int:
    """Size of plotly.js in a page, in bytes: nearly all of a report."""
    return len(_plotly().encode())


def _own(name: str) -> str:
    return (resources.files("tiltmeter.reports") / "templates" / name).read_text("utf-8")


def _script(code: str) -> Markup:
    r"""A script as it is in the page: a browser reads every line end as `\n`, and hashes that.

    `</script` and `<!--` would end the script early. They occur only inside strings, where the backslash has no effect.
    """
    code = code.replace("\r\n", "\n").replace("\r", "\n")
    return Markup(code.replace("</script", r"<\/script").replace("<!--", r"<\!--"))


def _policy(scripts: Sequence[str]) -> str:
    """The content security policy: no requests, and no scripts but these."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts if script]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    images = "img-src data: blob:; style-src 'unsafe-inline'"
    return f"default-src 'none'; script-src {allowed}; {images}; base-uri 'none'; form-action 'none'"


def _sweep_variables(numbers: SweepNumbers | None) -> dict[str, Any]:
    """Template variables of a sweep: its tables, and the names in the code that opens its files."""
    if numbers is None:
        return {"short": [], "all": (), "example": None}
    curves, table = numbers
    readouts = [name for name in readout_names(curves) if name != "length"] or ["length"]
    short = [WideTable(axis_label(curves[name]), headline(table, name)) for name in readouts]
    for part in short:
        part.cells.index.name = axis_label(curves.step)
    example = {"readout": repr(readouts[0]), "direction": repr(str(curves.direction.values[-1]))}
    return {"short": short, "all": table, "example": example}


def _sections(provenance: Mapping[Any, Any], manifest: Mapping[str, Any]) -> list[_Section]:
    """Provenance of the curves, then the manifest's identity and record, grouped by subject."""
    subjects: dict[str, dict[str, str]] = {
        "overview": {str(name): str(value) for name, value in provenance.items() if name != "manifest"}
    }
    if "created" in manifest:
        subjects["overview"]["created"] = str(manifest["created"])
    for part in ("identity", "record"):
        for subject, facts in manifest.get(part, {}).items():
            where, name = (subject, "") if isinstance(facts, Mapping) else ("overview", subject)
            subjects.setdefault(where, {}).update(_flattened(facts, name))
    return [_Section(subject, list(rows.items())) for subject, rows in subjects.items() if rows]


def _flattened(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Name and text of each value in nested mappings; names are joined by dots."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flattened(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _shown(value)


def _shown(value: Any) -> str:
    """Format a value of the manifest; long lists are abbreviated, since the full manifest is at the end of the page."""
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, float) else str(value)
    run = len(value) > 3 and all(isinstance(item, int) for item in value) and {b - a for a, b in pairwise(value)} == {1}
    if run:
        return f"{value[0]} to {value[-1]}"
    shown = ", ".join(_shown(item) for item in value[:32])
    return shown if len(value) <= 32 else f"{shown}, … ({len(value)} in all)"
