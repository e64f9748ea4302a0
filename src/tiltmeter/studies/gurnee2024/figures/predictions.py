"""Figure 1: how the predicted next token changes in a few prompts."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from tiltmeter.reports.charts.chart import Axis, Chart, Line, Panel, Points, in_rows
from tiltmeter.reports.charts.styles import style
from tiltmeter.studies.gurnee2024.experiments import TOKEN
from tiltmeter.studies.gurnee2024.figures.wording import COLUMNS, PAIR, TITLE
from tiltmeter.studies.results import Results
from tiltmeter.studies.study import PaperFigure


def _chart(results: Results) -> Chart:
    found = results["predictions"]
    prompts, predicted = (json.loads(found.attrs[name]) for name in ("prompts", "predicted"))
    panels = [
        _panel(found.isel(case=case), prompt, tuple(map(repr, texts)))
        for case, (prompt, texts) in enumerate(zip(prompts, predicted, strict=True))
    ]
    return Chart(in_rows(panels, COLUMNS), share=("x", "y"))


def _panel(one: xr.Dataset, prompt: str, texts: tuple[str, ...]) -> Panel:
    rank = one["rank"].to_numpy().astype(np.float64)
    runs = {str(name): one.log_probability.sel(run=name).to_numpy() for name in one.run.values}
    kl = ", ".join(f"{float(one.kl.sel(run=name)):.2f}" for name in runs if name != "clean")
    marks: tuple[Line | Points, ...] = (
        *(Line(name, rank, values, style(name)) for name, values in runs.items()),
        Points("clean", rank, runs["clean"], style("clean"), texts=texts),
    )
    shown = "".join(letter if letter.isprintable() else "�" for letter in " ".join(prompt.split())[-20:])
    title = f"…{shown}: KL {kl}"
    return Panel(title, Axis("rank of the next token, clean"), Axis("log probability, nats"), marks)


def _finding(results: Results) -> str:
    found = results["predictions"]
    pairs = [
        tuple(float(found.kl.sel(run=run)[case]) for run in ("sae-error", "epsilon-random")) for case in found.case
    ]
    words = ", ".join(f"{own:.2g} and {random:.2g}" for own, random in pairs)
    return f"KL of SAE(x) and of the random point at the same distance, by prompt: {words} nats."


FIGURE_1 = PaperFigure(
    title=f"{TITLE}, Figure 1: next-token predictions",
    caption="Log-probabilities of the 25 most likely next tokens of the clean run, for three sequences cut after "
    f"token {TOKEN}. Only that token is replaced, by {PAIR}. Titles: the end of the prompt, and the KL of both.",
    claimed="SAE(x) changes the prediction far more than the random point does.",
    needs=("predictions",),
    chart=_chart,
    finding=_finding,
)
