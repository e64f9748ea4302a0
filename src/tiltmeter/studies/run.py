"""Running a study: its experiments on a model and on its controls, each in its own run directory.

    manifest.json              the study, the model, the tokens, the SAEs
    experiments.json           every experiment, with the reason if it was not run
    model/<experiment>/        runs on the model
    control/initialised-0/<experiment>/   the same on a control
    control-saes/initialised-0/           SAEs trained on it
    claims.csv .json .tex      verdicts
    figures/, tables/          figures, and their numbers
    report.html

If the process is killed, the same command resumes: finished experiments are read, and the interrupted one continues
from its last saved shard.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models import provenance
from tiltmeter.models.loading import LoadedModel
from tiltmeter.reports.stored_claims import CLAIMS, SEVERAL, STUDY
from tiltmeter.runs import run_directory
from tiltmeter.saes.names import short_names
from tiltmeter.studies.columns import MODEL, ControlColumn
from tiltmeter.studies.control import CONTROLS
from tiltmeter.studies.control_saes import control_saes
from tiltmeter.studies.results import NotMeasured
from tiltmeter.studies.study import Experiment, KnownSAE, Size, Study, Subject

EXPERIMENTS = "experiments.json"
"""Every experiment with the reason if it was not run."""

CONTROL_TOKENS: dict[Size, int] = {"quick": 0, "default": 80_000, "paper": 2_000_000}
"""Training tokens of each control SAE; at 0 controls have no SAEs."""

NO_CONTROL_SAES = "A quick run trains no SAEs on controls."
LOCAL_ALONE = "Control SAEs are trained only for SAEs that were trained to reconstruct; this needs one."

Table = dict[str, dict[str, str]]
"""By column and experiment: why it was not measured; empty if it was to be."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyRun:
    """A study with everything that decides what is measured."""

    study: Study
    size: Size
    subject: Subject
    tokens: TokenSet
    training_tokens: Callable[[], TokenSet]
    """Loads the tokens that control SAEs are trained on."""
    controls: tuple[ControlColumn, ...] = ()
    figures: tuple[str, ...] = ()
    """Only experiments that these figures need are run; empty for all."""


def measure(request: StudyRun, out: Path, control_folder: Path | None = None) -> list[str]:
    """Measure every experiment that has no result yet. If one fails, the others still run.

    Args:
        request: the study, and what it runs on.
        out: the study's run directory.
        control_folder: where control SAEs are stored; several studies can share it. Default: in `out`.

    Returns:
        A sentence for each experiment that failed.

    Raises:
        TiltmeterError: a figure that cannot be drawn was asked for; nothing of the model could be measured; `out` is
            in use or belongs to another run.
    """
    refuse_figures(request)
    with run_directory.open_run(out, study_identity(request), lambda: _record(request)) as run:
        run.remove(CLAIMS)
        table: Table = {}
        failures = _measure_column(request, request.subject, MODEL, run, table)
        for column in request.controls:
            folder = (control_folder or out / "control-saes") / Path(column.name).name
            try:
                control = _control(request, column, folder)
                failures += _measure_column(request, control, column.name, run, table)
            except TiltmeterError as error:
                failures.append(f"{column.name}: {error}")
    return failures


def refuse_figures(request: StudyRun) -> None:
    """Refuse a figure that was asked for if none of its experiments can be measured.

    Raises:
        TiltmeterError: the message says why they cannot.
    """
    experiments = request.study.experiments(request.subject, request.size)
    for number in request.figures:
        needs = request.study.figures[number].needs
        needed = [one for name, one in experiments.items() if _matches(name, needs)] or list(experiments.values())
        reasons = [one.reason for one in needed if isinstance(one, NotMeasured)]
        if len(reasons) == len(needed):
            raise TiltmeterError(f"Figure {number} cannot be drawn. {reasons[0]}")


def _measure_column(
    request: StudyRun, subject: Subject, column: str, run: run_directory.Run, table: Table
) -> list[str]:
    """Measure the experiments of a column; returns the failures, and raises if everything failed."""
    experiments = request.study.experiments(subject, request.size)
    reasons = table[column] = _reasons(request, experiments, column)
    run.write_text(EXPERIMENTS, json.dumps(table, indent=2) + "\n")
    wanted = wanted_experiments(request, subject, column)
    failures = []
    for number, (name, experiment) in enumerate(wanted.items(), 1):
        _log.warning("%s, %s: %s (%d of %d)", request.study.name, column, name, number, len(wanted))
        try:
            experiment.run(subject.loaded, request.tokens, run.path / column / name, f"{request.study.name}/{name}")
        except TiltmeterError as error:
            failures.append(f"{column}/{name}: {error}")
            reasons[name] = f"It could not be measured: {error}"
            run.write_text(EXPERIMENTS, json.dumps(table, indent=2) + "\n")
            if len(failures) == len(wanted):
                if not (run.path / MODEL).exists():
                    run.remove(EXPERIMENTS)  # nothing was ever measured here, so nothing is left
                raise
    return failures


@contextmanager
def held(requests: Sequence[StudyRun], out: Path) -> Iterator[None]:
    """Lock the folder of several studies, so that no other run uses it.

    Raises:
        TiltmeterError: it is in use, or belongs to another run.
    """
    identity = {request.study.name: study_identity(request) for request in requests}
    with run_directory.open_run(out, identity, lambda: {"purpose": SEVERAL}):
        yield


def needed_sequences(study: Study, subject: Subject, size: Size) -> int:
    """How many token sequences a study uses, at most."""
    experiments = study.experiments(subject, size).values()
    return max((one.sequences for one in experiments if not isinstance(one, NotMeasured)), default=1)


def wanted_experiments(request: StudyRun, subject: Subject, column: str) -> dict[str, Experiment]:
    """The experiments that are run in a column."""
    experiments = request.study.experiments(subject, request.size)
    found = {name: experiments[name] for name, reason in _reasons(request, experiments, column).items() if not reason}
    return {name: one for name, one in found.items() if not isinstance(one, NotMeasured)}


def _control(request: StudyRun, column: ControlColumn, folder: Path) -> Subject:
    """The subject on a control, with its SAEs trained; its activations have other sizes, so lengths are scaled."""
    control = CONTROLS[column.control](request.subject.loaded, column.seed)
    saes = _control_saes(request, column, control, folder)
    return replace(request.subject, loaded=control, saes=saes, lengths="scaled")


def _control_saes(request: StudyRun, column: ControlColumn, control: LoadedModel, folder: Path) -> tuple[KnownSAE, ...]:
    """Train the SAEs of the control, or find them trained."""
    known = {sae.name: sae for sae in used_saes(request, column)}
    if not known or not (budget := CONTROL_TOKENS[request.size]):
        return ()
    l0 = {name: sae.l0 for name, sae in known.items() if sae.l0 is not None}
    trained = control_saes(list(known), control, request.training_tokens(), folder, budget, l0)
    return tuple(known[name]._replace(name=own) for name, own in trained.items())


def used_saes(request: StudyRun, column: ControlColumn) -> list[KnownSAE]:
    """SAEs that the experiments of a control use; only these need control SAEs."""
    wanted = wanted_experiments(request, request.subject, column.name)
    names = {name for one in wanted.values() for name in one.saes}
    return [sae for sae in request.subject.saes if sae.name in names]


def _reasons(request: StudyRun, experiments: dict[str, Experiment | NotMeasured], column: str) -> dict[str, str]:
    """Every experiment, with the reason why it is not run; empty if it is."""
    figures = [request.study.figures[number] for number in request.figures]
    needs = {need for figure in figures for need in figure.needs}
    reasons = {name: _reason(name, one, needs) for name, one in experiments.items()}
    if column != MODEL:
        why = LOCAL_ALONE if CONTROL_TOKENS[request.size] else NO_CONTROL_SAES
        own = request.study.experiments(request.subject, request.size)
        lost = (name for name, one in experiments.items() if isinstance(one, NotMeasured) and name in own)
        reasons |= {name: why for name in lost if not isinstance(own[name], NotMeasured)}
        reasons |= {name: "No claim rests on it." for name in reasons if _matches(name, request.study.uncontrolled)}
    return reasons


def _reason(name: str, experiment: Experiment | NotMeasured, needs: Collection[str]) -> str:
    if isinstance(experiment, NotMeasured):
        return experiment.reason
    if needs and not _matches(name, needs):
        return "It was not run: no figure that was asked for needs it; omit --figure to run all."
    return ""


def _matches(name: str, wanted: Collection[str]) -> bool:
    """Whether an experiment is one of these, or one layer (`NAME-3`) of one of them."""
    family, _, layer = name.rpartition("-")
    return name in wanted or (layer.isdigit() and family in wanted)


def study_identity(request: StudyRun) -> dict[str, Any]:
    """Everything that determines the numbers of a study, whatever figures and controls of it are asked for."""
    subject = request.subject
    names = short_names([sae.name for sae in subject.saes])
    return provenance.identity(subject.loaded, request.tokens) | {
        "study": request.study.name,
        "size": request.size,
        "layer": subject.layer,
        "seed": subject.seed,
        "lengths": subject.lengths,
        "saes": names,
    }


def _record(request: StudyRun) -> dict[str, Any]:
    model = request.subject.loaded.model
    shape = {"layers": model.n_layers, "width": model.width, "vocabulary": model.vocabulary}
    return provenance.record(request.subject.loaded, request.tokens) | {"purpose": STUDY, "shape": shape}
