"""Figures and report of a comparison of vectors with baselines, from its tables: nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.analysis.standing import MINUS, draws_among, stem, with_opposites
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts.chart import Axis, Bars, Chart, Line, Panel
from tiltmeter.reports.charts.styles import Style, styles
from tiltmeter.reports.figure import ReportFigure
from tiltmeter.reports.page import write_report

LENGTH = "length, pair distances"

NOTES = (
    "A draw of a baseline is one random vector that is added at every token, as the vector itself is. All have one "
    "length. The p-value against a baseline is that of the whole curve among the curves of its draws (extreme rank "
    "length); that of a verdict is the largest of these, multiplied by the number of vectors tested (Bonferroni).",
    "Ratios are of mean KL, the vector's divided by that of all draws; brackets are 95 % intervals over sequences and "
    "draws.",
)


def publish_comparison(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Draw a comparison, and write its report.

    Returns:
        The path of `report.html`; figures lie in `figures/` beside it, their numbers in `tables/`.

    Raises:
        TiltmeterError: the run has not finished, or the folder cannot be written.
    """
    if not (folder / "verdicts.csv").is_file():
        raise TiltmeterError(f"{folder} is a run that has not finished; repeat its command to go on with it.")
    data = curves.load(folder / "curves.nc")
    verdicts, budgets = (curves.read_table(folder / f"{name}.csv") for name in ("verdicts", "budgets"))
    vectors = manifest["identity"]["compare"]["vectors"]
    title = f"{', '.join(vectors)} at {data.attrs['site']}, on {data.attrs['model']}"
    figures = [_fans(data, manifest, verdicts), *([_lengths(budgets, vectors)] if len(budgets) else [])]
    return write_report(folder, title, _summary(data, verdicts), figures, manifest, notes=NOTES)


def comparison_text(folder: Path) -> str:
    """The verdicts, and where each vector stands at the largest length, for the terminal."""
    verdicts, table = (curves.read_table(folder / f"{name}.csv") for name in ("verdicts", "standings"))
    last = table[table.length == table.length.max()]
    cells = pd.DataFrame(
        {
            "vector": last.vector,
            "baseline": last.baseline,
            "mean KL": last["mean"].map("{:.3g}".format),
            "ratio [95 % interval]": [
                f"{row.ratio:.3g} [{row.ratio_low:.3g}, {row.ratio_high:.3g}]" for row in last.itertuples()
            ],
            "percentile": last.percentile.map("{:.1f}".format),
            "p (curve)": last.p_curve.map("{:.2g}".format),
        }
    )
    title = f"At length {table.length.max():g} pair distances:"
    return "\n".join([*verdicts.sentence, "", title, cells.to_string(index=False)])


def _summary(data: xr.Dataset, verdicts: pd.DataFrame) -> list[str]:
    number = f"{data.sizes['sequence']} sequences of {data.attrs['tokens']}"
    place = (
        f"Perturbed and read at {data.attrs['site']} (positions: {data.attrs['positions']}) of {data.attrs['model']}"
    )
    return [*verdicts.sentence, f"{place}, on {number}.", f"Pair distance: {data.attrs['pair_distance']:.4g}."]


def _fans(data: xr.Dataset, manifest: Mapping[str, Any], verdicts: pd.DataFrame) -> ReportFigure:
    asked = manifest["identity"]["compare"]
    return ReportFigure(
        "compare",
        "Each vector among random vectors of the same length",
        "Mean KL over tokens. Thin lines: draws of the baseline, each one vector added at every token. Solid: the "
        "vector; dotted: its opposite; bands: 95 % intervals over sequences.",
        "",
        " ".join(verdicts.sentence),
        fans(data, asked["vectors"], asked["baselines"]),
    )


def fans(data: xr.Dataset, vectors: Sequence[str], baselines: Sequence[str]) -> Chart:
    """Plot each vector and its opposite among the draws of each baseline: a row per vector, a column per baseline.

    Args:
        data: the curves of a comparison.
        vectors: labels of vectors.
        baselines: names of baselines.
    """
    looks, rows = styles(vectors), list[tuple[Panel, ...]]()
    for vector in vectors:
        means = _means(data, vector, looks[vector])
        titles = baselines if not rows else [""] * len(baselines)  # a column's title stands above it, once
        panels = [_fan(data, vector, one, vectors, means) for one in baselines]
        rows.append(tuple(replace(panel, title=title) for panel, title in zip(panels, titles, strict=True)))
    return Chart(tuple(rows), share=("x", "y"))


def _fan(data: xr.Dataset, vector: str, baseline: str, vectors: Sequence[str], means: Sequence[Line]) -> Panel:
    names, x = [str(name) for name in data.direction.values], _pair_distances(data)
    kl, grey = data.kl.transpose("direction", "step", "sequence"), Style("#444444", marker="")
    stems = dict.fromkeys(stem(baseline, name, vectors) for name in (vector, MINUS + vector))
    draws = [
        Line("draws of the baseline", x, kl.values[at].mean(-1), grey, thin=True)
        for first in stems
        for at in draws_among(names, first)
    ]
    return Panel(baseline, Axis(LENGTH), Axis(f"mean KL of {vector}, nats", log=True), (*draws, *means))


def _means(data: xr.Dataset, vector: str, look: Style) -> list[Line]:
    """The means of a vector and its opposite, with their intervals."""
    table = curves.summary(data[["kl", "tokens"]].sel(direction=list(with_opposites([vector]))))
    found, solid, dotted = [], look._replace(linestyle="solid"), look._replace(linestyle=(0.0, (1.2, 1.2)))
    for name, style in ((vector, solid), (MINUS + vector, dotted)):
        of_one = table[(table.direction == name) & (table.readout == "kl")]
        y, low, high = (of_one[column].to_numpy() for column in ("mean", "low", "high"))
        found.append(Line(name, _pair_distances(data), y, style, low, high))
    return found


def _pair_distances(data: xr.Dataset) -> np.ndarray:
    return data.step.values / data.attrs["pair_distance"]


def _lengths(budgets: pd.DataFrame, vectors: Sequence[str]) -> ReportFigure:
    names = list(dict.fromkeys(budgets.direction))
    looks = styles([name for name in names if not name.startswith(MINUS) or name.removeprefix(MINUS) not in vectors])
    rows = []
    for budget in sorted(set(budgets.budget)):
        table, marks = budgets[budgets.budget == budget].set_index("direction").replace(np.inf, np.nan), []
        for name in names:
            look = looks.get(name) or looks[name.removeprefix(MINUS)]
            y, low, high = (table[column][[name]].to_numpy(float) for column in ("median", "median_low", "median_high"))
            marks.append(Bars(name, (name,), y, look, low, high))
        rows.append((Panel(f"KL {budget:g} nats", Axis(""), Axis(f"median {LENGTH}"), tuple(marks)),))
    return ReportFigure(
        "budgets",
        "Length at which KL reaches a budget",
        "Median over sequences, with its 95 % interval. Baselines are drawn for each token anew. Where half of the "
        "sequences do not reach the budget within two pair distances, there is no median.",
        "",
        _reached(budgets, vectors),
        Chart(tuple(rows), share=("y",)),
    )


def _reached(budgets: pd.DataFrame, vectors: Sequence[str]) -> str:
    found = [
        f"{row.direction} reaches a KL of {row.budget:g} at {row.median:.3g} [{row.median_low:.3g}, "
        f"{row.median_high:.3g}] pair distances ({row.censored} of {row.n + row.censored} sequences never)"
        for row in budgets[budgets.direction.isin(with_opposites(vectors))].itertuples()
    ]
    return "; ".join(found) + "."
