"""What a study would take, found by trying one of its sweeps of each kind: nothing is stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tiltmeter.runs.progress import progress
from tiltmeter.runs.run_directory import shard_names, stored_names
from tiltmeter.saes.training.run import try_training
from tiltmeter.studies.columns import MODEL
from tiltmeter.studies.control_saes import ControlTraining, control_trainings
from tiltmeter.studies.forecast import StudyForecast
from tiltmeter.studies.reproduce import ALL, ReproduceOptions, folder_of, requested
from tiltmeter.studies.run import (
    CONTROL_TOKENS,
    StudyRun,
    refuse_figures,
    study_identity,
    used_saes,
    wanted_experiments,
)
from tiltmeter.studies.study import Experiment, SweepExperiment
from tiltmeter.sweeps.dry_run import evenly, forecast_of
from tiltmeter.sweeps.forecast import Forecast
from tiltmeter.sweeps.plan import Plan, make_plan
from tiltmeter.sweeps.tried import try_run

COUNTED = {"site", "directions", "saes", "base", "readouts", "seed", "synthesis"}
"""What may differ between sweeps that cost the same: `_kind` counts what costs of it."""

Place = tuple[str, str]
"""A column and an experiment."""


def dry_run_study(name: str, wanted: ReproduceOptions, out: Path | None) -> tuple[Path, list[StudyForecast]]:
    """Say what a study, or each of all, would measure and what that would take, without storing anything.

    Sweeps that differ in their layer, their SAE or their column alone are of one kind: one of each kind is tried, at
    the layer in the middle, and the others are taken to need as much. On controls nothing is tried: their shape is that
    of the model, and the SAEs of the model stand for those that would be trained.

    Args:
        name: the study, or `all`.
        wanted: what would be reproduced.
        out: the run directory. If it holds a part of the study already, that is taken into account.

    Returns:
        The run directory, and what each study would take.

    Raises:
        TiltmeterError: as the study would, as far as that is seen from a few batches.
    """
    requests = requested(name, wanted)
    folder = folder_of(name, requests, out)
    shared: set[Path] = set()
    folders = [folder / one.study.name if name == ALL else folder for one in requests]
    return folder, [
        forecast_study(one, own, folder / "control-saes", shared) for one, own in zip(requests, folders, strict=True)
    ]


def forecast_study(request: StudyRun, folder: Path, control_folder: Path, shared: set[Path]) -> StudyForecast:
    """Say what one study would take; `shared` are the control SAEs of earlier ones, to which its own are added."""
    refuse_figures(request)
    stored_names(folder, study_identity(request))  # refuses the folder of another run
    trainings = _trainings(request)
    found = _experiments(request, trainings)
    sweeps = {place: one for place, one in found.items() if isinstance(one, SweepExperiment)}
    folders = {
        control_folder / Path(column.name).name / one.folder
        for column in request.controls
        for one in trainings.values()
    } - shared
    shared |= folders
    model = request.subject.loaded.model
    return StudyForecast(
        study=request.study.name,
        size=request.size,
        figures=request.figures or tuple(request.study.figures),
        columns=(MODEL, *(column.name for column in request.controls)),
        saes=len({name for one in found.values() for name in one.saes}),
        kinds=tuple(_forecasts(request, sweeps, folder)),
        sweeps=len(sweeps),
        others=tuple("/".join(place) for place in found if place not in sweeps),
        left_out=len(request.study.experiments(request.subject, request.size))
        - sum(column == MODEL for column, _ in found),
        trainings=len(folders),
        training_tokens=CONTROL_TOKENS[request.size],
        training_seconds=_training_seconds(request, list(trainings.values())) if folders else 0.0,
        trainings_done=sum((one / "sae").is_dir() for one in folders),
        weights=sum(one.nbytes for one in model.hf.parameters()) if request.controls else 0,
        on_device=model.device.type != "cpu",
    )


def _trainings(request: StudyRun) -> dict[str, ControlTraining]:
    """By name of the SAE, the trainings on each control: all controls use the same SAEs."""
    used = [] if not request.controls else used_saes(request, request.controls[0])
    if not used or not (budget := CONTROL_TOKENS[request.size]):
        return {}
    l0 = {sae.name: sae.l0 for sae in used if sae.l0 is not None}
    names = [sae.name for sae in used]
    return control_trainings(names, request.subject.loaded.model, request.training_tokens(), budget, l0)


def _training_seconds(request: StudyRun, trainings: Sequence[ControlTraining]) -> float:
    (one,) = evenly(trainings, 1)
    return try_training(one.config, request.subject.loaded, request.training_tokens())


def _experiments(request: StudyRun, trainings: Mapping[str, ControlTraining]) -> dict[Place, Experiment]:
    """What is run, in all columns; on controls the SAEs of the model stand for those that are trained."""
    trained = tuple(sae for sae in request.subject.saes if sae.name in trainings)
    subjects = {MODEL: request.subject}
    subjects |= {column.name: replace(request.subject, saes=trained) for column in request.controls}
    return {
        (column, name): one
        for column, subject in subjects.items()
        for name, one in wanted_experiments(request, subject, column).items()
    }


def _forecasts(request: StudyRun, sweeps: Mapping[Place, SweepExperiment], folder: Path) -> Iterator[Forecast]:
    """What the sweeps of each kind take."""
    loaded, kinds = request.subject.loaded, defaultdict[str, list[tuple[Plan, Path]]](list)
    for (column, name), one in sweeps.items():
        plan = make_plan(one.fitting(request.tokens), loaded.model, request.tokens, loaded.tokenizer)
        kinds[_kind(plan)].append((plan, folder / column / name))
    for some in progress(list(kinds.values()), "kinds of sweeps"):
        some = sorted(some, key=lambda one: one[0].site.boundary)
        plans = [plan for plan, _ in some]
        (tried,) = evenly(plans, 1)
        stored = [shard_names(own) for _, own in some]
        yield forecast_of(plans, stored, [try_run(tried.sweep, tried, loaded)])


def _kind(plan: Plan) -> str:
    """Equal for sweeps that cost the same, but for the layer."""
    counted = {
        "site": plan.site.kind,
        "directions": [name.kind for name in plan.directions],
        "saes": [sorted(at.sae.decoder.shape for at in plan.saes.values()), len(plan.dictionaries)],
        "base": plan.base.kind,
        "readouts": [one.name.partition("@")[0] for one in plan.readouts],
    }
    return json.dumps([plan.sweep.model_dump(mode="json", exclude=COUNTED), counted])
