"""Verdicts, figures and report of a study's run, from its stored results; nothing is measured here."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from tiltmeter.analysis.curves import load as load_curves
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports import stored_claims
from tiltmeter.reports.answer import Answer, answer
from tiltmeter.reports.charts.renamed import renamed
from tiltmeter.reports.figure import ReportFigure
from tiltmeter.reports.page import write_report
from tiltmeter.reports.stored_claims import CLAIMS, STUDY
from tiltmeter.reports.tables.claim_text import ClaimRow
from tiltmeter.runs.progress import progress
from tiltmeter.runs.run_directory import MANIFEST, read_manifest
from tiltmeter.runs.user_paths import user_path
from tiltmeter.studies import STUDIES, find_study
from tiltmeter.studies.claim_rows import claim_rows
from tiltmeter.studies.claims import judge
from tiltmeter.studies.columns import MODEL, stored_columns
from tiltmeter.studies.results import NotMeasured, Results, saes_of
from tiltmeter.studies.run import EXPERIMENTS
from tiltmeter.studies.sae_labels import renaming, sae_labels
from tiltmeter.studies.sizes import measured_on
from tiltmeter.studies.study import PaperFigure, Study
from tiltmeter.studies.token_facts import FILE as FACTS

GPT2_SMALL = {"layers": 12, "width": 768, "vocabulary": 50257}
"""The published numbers are for GPT-2 small, so they are shown only beside a run on a model of this shape."""

NEEDED = {"identity": ("study", "size", "layer"), "record": ("model", "tokens", "shape")}
"""The parts of a study's manifest that are read here."""

_log = logging.getLogger(__name__)


class StoredStudy(NamedTuple):
    """A study's run, as stored on disk."""

    study: Study
    manifest: dict[str, Any]
    results: Results
    controls: dict[str, dict[int, Results]]
    """Results on each control, by seed."""


def read_study(folder: Path) -> StoredStudy:
    """Read a study's run.

    Raises:
        TiltmeterError: the folder is not a study's run.
    """
    manifest = read_manifest(folder)
    if not is_study(folder):
        raise TiltmeterError(f"{folder} is not the run of a study; name a folder that tiltmeter reproduce made.")
    if lacking := [key for part, keys in NEEDED.items() for key in keys if key not in manifest[part]]:
        raise TiltmeterError(f"{folder / MANIFEST} is damaged: it lacks {lacking[0]}; choose another directory.")
    reasons = _reasons(folder)
    controls = {
        control: {column.seed: _results(folder, column.name, reasons[column.name]) for column in columns}
        for control, columns in stored_columns(reasons).items()
    }
    study = find_study(str(manifest["identity"]["study"]))
    return StoredStudy(study, manifest, _results(folder, MODEL, reasons.get(MODEL, {})), controls)


def claims_of(stored: StoredStudy) -> list[ClaimRow]:
    """The verdict of a run on each claim of its paper."""
    own = judge(stored.study.claims, stored.results)
    controls = {
        control: {seed: judge(stored.study.claims, results) for seed, results in seeds.items()}
        for control, seeds in stored.controls.items()
    }
    published = stored.manifest["record"].get("shape") == GPT2_SMALL
    return _in_topics(stored.study, claim_rows(stored.study.name, own, controls, published))


def publish_study(folder: Path) -> Path:
    """Judge the claims, draw the figures and write the report of a study's run.

    Returns:
        The report.

    Raises:
        TiltmeterError: the folder is not a study's run, or cannot be written to.
    """
    stored = read_study(folder)
    rows = claims_of(stored)
    _write_claims(folder, rows)
    figures = report_figures(stored)
    title = f"{stored.study.citation}, on {_model(stored.manifest)}"
    return write_report(
        folder,
        title,
        _summary(stored),
        figures,
        stored.manifest,
        claims=rows,
        answers=[_answer("", stored.study, rows, figures)],
        notes=_notes(rows, [stored.manifest]),
    )


def publish_all(folder: Path) -> Path:
    """One report of all studies in a folder.

    Returns:
        The report.
    """
    stored = [read_study(folder / name) for name in studies_in(folder)]
    figures, rows, answers = [], [], []
    for one in stored:
        own, claimed = _of_one(one, _stored_claims(folder / one.study.name))
        figures += own
        rows += claimed
        answers.append(_answer(one.study.citation, one.study, claimed, own))
    manifest = {part: {one.study.name: one.manifest[part] for one in stored} for part in ("identity", "record")}
    summary = [line for one in stored for line in (f"{one.study.citation}.", *_summary(one))] + stored_claims.lacking(
        folder, studies_in(folder)
    )
    title = f"Works on sensitive directions, on {_model(stored[0].manifest)}"
    _write_claims(folder, rows)
    notes = _notes(rows, [one.manifest for one in stored])
    return write_report(folder, title, summary, figures, manifest, claims=rows, answers=answers, notes=notes)


def _of_one(stored: StoredStudy, rows: Sequence[ClaimRow]) -> tuple[list[ReportFigure], list[ClaimRow]]:
    """Figures and claims of one study of several, whose figures may have the same numbers."""
    name = stored.study.name
    figures = [figure._replace(name=f"{name}-{figure.name}") for figure in report_figures(stored)]
    return figures, [row._replace(figures=tuple(f"{name}-{figure}" for figure in row.figures)) for row in rows]


def _in_topics(study: Study, rows: Sequence[ClaimRow]) -> list[ClaimRow]:
    """The claims of a study in the order of its topics, each with its topic and figures; those of none come last."""
    by_name = {row.name: row for row in rows}
    found = [
        by_name.pop(name)._replace(topic=topic.title, figures=tuple(f"figure-{number}" for number in topic.figures))
        for topic in study.topics
        for name in topic.claims
        if name in by_name
    ]
    return [*found, *by_name.values()]


def _answer(heading: str, study: Study, rows: Sequence[ClaimRow], figures: Sequence[ReportFigure]) -> Answer:
    return answer(heading, rows, study.headlines, {figure.name for figure in figures if figure.chart})


def claims_text(run: str | Path) -> str:
    """The table of claims of a study's run, or of all studies in a folder, for a terminal, as last judged.

    Raises:
        TiltmeterError: the folder is neither.
    """
    folder = user_path(run)
    return stored_claims.table_of_claims(folder, studies_in(folder), claims_rows(run))


def claims_rows(run: str | Path) -> list[ClaimRow]:
    """The claims of a study's run, or of all studies in a folder, as last judged.

    Raises:
        TiltmeterError: the folder is neither.
    """
    folder = user_path(run)
    return [row for name in studies_in(folder) for row in _stored_claims(folder / name)] or _stored_claims(folder)


def report_figures(stored: StoredStudy) -> list[ReportFigure]:
    """Every figure of the study, or the reason why it cannot be drawn."""
    return [
        _report_figure(number, figure, stored.results)
        for number, figure in progress(list(stored.study.figures.items()), "figures")
    ]


def _report_figure(number: str, figure: PaperFigure, results: Results) -> ReportFigure:
    """The figure, with the labels of SAEs in the place of their names, and how much it was measured on."""
    name = f"figure-{number}"
    try:
        chart, finding = figure.chart(results), figure.finding(results)
    except NotMeasured as error:
        return ReportFigure(name, figure.title, figure.caption, figure.claimed, f"Not drawn: {error}", chart=None)
    rename = renaming(sae_labels(results, figure.needs))
    caption = " ".join(filter(None, [figure.caption, measured_on(results.of_experiments(figure.needs))]))
    return ReportFigure(name, figure.title, caption, figure.claimed, rename(finding), renamed(chart, rename))


def _reasons(folder: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads((folder / EXPERIMENTS).read_text(encoding="utf-8"))
        return {column: {name: str(reason) for name, reason in rows.items()} for column, rows in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TiltmeterError(
            f"{folder / EXPERIMENTS} cannot be read ({reason}); repeat the command that made the run."
        ) from error


def _results(folder: Path, column: str, reasons: Mapping[str, str]) -> Results:
    """The stored results of a column. An experiment that was to be run and has no result has not finished."""
    found = {name: data for name in reasons if (data := _dataset(folder / column / name)) is not None}
    unfinished = "It has not finished; repeat the command to resume it."
    missing = {name: f"{name}: {reason or unfinished}" for name, reason in reasons.items() if name not in found}
    return Results(found, missing)


def _dataset(folder: Path) -> xr.Dataset | None:
    if (folder / "curves.nc").is_file():
        return load_curves(folder / "curves.nc")
    if (folder / FACTS).is_file():
        return _facts(folder / FACTS)
    return None


def _facts(path: Path) -> xr.Dataset:
    try:
        return xr.load_dataset(io.BytesIO(path.read_bytes()), engine="scipy")
    except Exception as error:  # the parser of a damaged file may fail in any way
        raise TiltmeterError(f"{path} is not a complete NetCDF file; repeat the command that made the run.") from error


def is_study(folder: Path) -> bool:
    """Whether a folder is the run of a study."""
    return read_manifest(folder)["record"].get("purpose") == STUDY


def studies_in(folder: Path) -> list[str]:
    """Studies that have a run in a folder made by `reproduce all`."""
    return stored_claims.studies_in(folder, tuple(STUDIES))


def _write_claims(folder: Path, rows: Sequence[ClaimRow]) -> None:
    try:
        (folder / CLAIMS).write_text(stored_claims.written_rows(rows), encoding="utf-8")
    except OSError as error:
        raise TiltmeterError(f"cannot write {folder / CLAIMS} ({error.strerror}); make room.") from error


def _stored_claims(folder: Path) -> list[ClaimRow]:
    """The claims as last judged; a run that stopped before that is judged on what it has measured."""
    return stored_claims.stored_rows(folder) or claims_of(read_study(folder))


def _model(manifest: Mapping[str, Any]) -> str:
    return str(manifest["record"]["model"]["name"])


def _summary(stored: StoredStudy) -> list[str]:
    """Model, layer, tokens, size, control and SAEs of the run."""
    identity, record = stored.manifest["identity"], stored.manifest["record"]
    tokens, shape = record["tokens"], record["shape"]
    return [
        f"{_model(stored.manifest)}: {shape['layers']} layers of width {shape['width']}. The paper's layer is "
        f"{identity['layer']} here.",
        f"{_measured(stored.results)} of {tokens['shape'][1]} tokens, of {tokens['name']}.",
        f"Size: {identity['size']}; {_controls(stored)}. {len(stored.results)} experiments, {_saes(stored.results)}.",
    ]


def _measured(results: Results) -> str:
    """How many sequences the experiments measure."""
    sizes = sorted({data.sizes["sequence"] for data in results.values() if "sequence" in data.sizes}) or [0]
    return f"{sizes[0]} sequences" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} sequences, by experiment,"


def _controls(stored: StoredStudy) -> str:
    counts = [f"{control} ({len(seeds)} seed{'s' * (len(seeds) > 1)})" for control, seeds in stored.controls.items()]
    return f"the same experiments on controls: {', '.join(counts)}" if counts else "no control"


def _saes(results: Results) -> str:
    """How many SAEs were used, and their L0."""
    found = {
        label: facts["l0"]
        for data in results.values()
        if "saes" in data.attrs
        for label, facts in saes_of(data).items()
    }
    if not found:
        return "no SAEs"
    measured = [value for value in found.values() if value is not None]
    between = f" of L0 {min(measured):.0f} to {max(measured):.0f}" if measured else ""
    return f"{len(found)} SAE{'s' * (len(found) > 1)}{between}"


def _notes(rows: Sequence[ClaimRow], manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """How to read the table of claims."""
    names = dict.fromkeys(row.study for row in rows)
    return [
        "A claim is supported if the joint interval of each of its estimates lies inside the claimed region, "
        "contradicted if one lies outside, and inconclusive otherwise. Intervals shown are 95 % for each estimate. "
        "Verdicts use joint intervals, which hold together with 95 % (Bonferroni) for all "
        f"claims of a paper ({', '.join(names)}), so the interval beside an inconclusive verdict can be narrow.",
        stored_claims.MEASURED,
        *stored_claims.about_size(manifests),
        "Controls: the same claims on models that have learned nothing, initialised anew or with the trained weights "
        "shuffled within each tensor. What holds on an initialised model needs no training; what holds on a shuffled "
        "one needs no more of it than the sizes of the weights. A claim that holds on either is no evidence about what "
        "the model has learned.",
    ]
