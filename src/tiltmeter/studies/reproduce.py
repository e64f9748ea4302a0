"""What `tiltmeter reproduce` does: look up the study, load its inputs, measure, and write the report."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.fingerprint import fingerprint_sha256
from tiltmeter.models.loading import LoadedModel, load_model
from tiltmeter.runs.extras import require
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes.dictionary import only_saes
from tiltmeter.saes.loading import read_early, refuse_unknown
from tiltmeter.studies import STUDIES, check_figures, find_study
from tiltmeter.studies.columns import BY_SIZE, CHOICES, control_columns
from tiltmeter.studies.lengths import Lengths
from tiltmeter.studies.report import claims_text, publish_all, publish_study
from tiltmeter.studies.run import StudyRun, held, measure, needed_sequences
from tiltmeter.studies.study import Preset, Size, Study
from tiltmeter.studies.subject import make_subject

ALL = "all"

TRAINING_LENGTH = 128
"""Tokens per sequence for training control SAEs, if the model's context is at least as long."""

TRAINING_SEQUENCES = 16_384
"""The most sequences that control SAEs are trained on."""

QUICK_LENGTH = 64
"""Tokens of a quick run's sequences: intervals count sequences."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of `tiltmeter reproduce`; None for those that were not given.

    In Python, model and tokens may be objects that `load_model` and `load_tokens` take.
    """

    figures: tuple[str, ...] = ()
    size: str = "default"
    preset: str | None = None
    model: Any = None
    revision: str | None = None
    layer: int | None = None
    tokens: Any = None
    column: str | None = None
    tokens_revision: str | None = None
    length: int | None = None
    bos_before: str | None = None
    saes: tuple[str, ...] = ()
    control: str | None = None
    """A key of `CHOICES`; by default that of the size (`BY_SIZE`)."""
    control_seeds: int = 1
    device: str = "cpu"
    precision: str = "auto"
    seed: int = 0


def reproduce(name: str, wanted: ReproduceOptions, out: Path | None) -> tuple[Path, str]:
    """Reproduce one study, or all, into a run directory.

    Returns:
        The report, and the table of claims as text.

    Raises:
        TiltmeterError: wrong input; matplotlib is not installed.
    """
    requests = requested(name, wanted)
    folder = folder_of(name, requests, out)
    page, failures = _one(requests[0], folder) if name != ALL else _all(requests, folder)
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise TiltmeterError(f"{failures[0]}{more} The report, {page}, has what could be measured.")
    return page, claims_text(folder)


def requested(name: str, wanted: ReproduceOptions) -> list[StudyRun]:
    """Load what one study, or all, run on.

    Raises:
        TiltmeterError: as `reproduce`, before anything is measured.
    """
    require("matplotlib", "report", "A study, which ends in figures,")
    studies = list(STUDIES.values()) if name == ALL else [find_study(name)]
    _check(studies, name, wanted)
    loaded: dict[object, LoadedModel] = {}
    texts: dict[str, TokenSet] = {}
    return [_request(study, wanted, loaded, texts) for study in studies]


def folder_of(name: str, requests: list[StudyRun], out: Path | None) -> Path:
    """The run directory: the one that was asked for, or one whose name depends on what is measured."""
    return user_path(out) if out else _folder(name, requests)


def _one(request: StudyRun, folder: Path) -> tuple[Path, list[str]]:
    failures = measure(request, folder)
    return publish_study(folder), failures


def _all(requests: list[StudyRun], folder: Path) -> tuple[Path, list[str]]:
    """Run every study, even if one fails; they share control SAEs."""
    failures: list[str] = []
    done = []
    with held(requests, folder):
        for request in requests:
            own = folder / request.study.name
            try:
                failures += measure(request, own, folder / "control-saes")
                done.append(publish_study(own))
            except TiltmeterError as error:
                failures.append(f"{request.study.name}: {error}")
                if request is requests[-1] and not done:
                    raise
        return publish_all(folder), failures


def _check(studies: list[Study], name: str, wanted: ReproduceOptions) -> None:
    """Refuse wrong options before a model is loaded."""
    if wanted.size not in get_args(Size):
        raise TiltmeterError(f"{wanted.size!r} is not a size; choose from {', '.join(get_args(Size))}.")
    if wanted.control is not None and wanted.control not in CHOICES:
        raise TiltmeterError(f"{wanted.control!r} is not a control; choose from {', '.join(CHOICES)}.")
    if wanted.control_seeds < 1:
        raise TiltmeterError(f"The number of seeds of each control is {wanted.control_seeds}; give at least 1.")
    if wanted.model is not None and wanted.preset:
        raise TiltmeterError("Give --preset or --model, not both: a preset is a model, its data and its SAEs.")
    if wanted.model is not None and wanted.tokens is None:
        given = wanted.model if isinstance(wanted.model, str) else "the model"
        raise TiltmeterError(
            f"No tokens were named for {given}; give --tokens a file or a data set of token sequences."
        )
    if name == ALL and wanted.figures:
        raise TiltmeterError("--figure needs one study; name the study instead of all.")
    for study in studies:
        check_figures(study, wanted.figures)
        if wanted.model is None:
            _preset(study, wanted)
    for sae in wanted.saes:
        refuse_unknown(sae)
        if (found := read_early(sae, "")) is not None:
            only_saes(found)


def _preset(study: Study, wanted: ReproduceOptions) -> Preset:
    """The preset that was asked for, `nano` by default; options that were given override its parts."""
    name = wanted.preset or "nano"
    if name not in study.presets:
        raise TiltmeterError(f"{name!r} is not a preset of {study.name}; choose from {', '.join(study.presets)}.")
    return study.presets[name]


def _request(
    study: Study, wanted: ReproduceOptions, loaded: dict[object, LoadedModel], texts: dict[str, TokenSet]
) -> StudyRun:
    preset = _preset(study, wanted) if wanted.model is None else None
    given = wanted.model if preset is None else preset.model
    name = given if isinstance(given, str) else id(given)
    if name not in loaded:
        loaded[name] = _load(given, wanted)
    saes = wanted.saes or (preset.saes if preset else ())
    layer = _layer(wanted, preset)
    subject = make_subject(study, loaded[name], layer, saes, wanted.seed, _lengths(layer, preset))
    size: Size = wanted.size  # type: ignore[assignment]  # checked above
    if preset and wanted.tokens is None:
        wanted = replace(wanted, tokens=preset.tokens, bos_before=wanted.bos_before or preset.bos_before)
    length = _length(study, loaded[name], size) if wanted.length is None else wanted.length
    tokens = _tokens(loaded[name], wanted, length, needed_sequences(study, subject, size))
    controls = control_columns(CHOICES[wanted.control or BY_SIZE[size]], wanted.seed, wanted.control_seeds)
    return StudyRun(
        study, size, subject, tokens, lambda: _training_tokens(loaded[name], wanted, texts), controls, wanted.figures
    )


def _load(given: Any, wanted: ReproduceOptions) -> LoadedModel:
    if not isinstance(given, str):
        return load_model(given)
    _log.warning("model: %s", given)
    return load_model(given, revision=wanted.revision, device=wanted.device, precision=wanted.precision)


def _length(study: Study, loaded: LoadedModel, size: Size) -> int:
    """Tokens of a sequence: the paper's, or fewer for a quick run, which then has more sequences in the same time."""
    return min(study.length, loaded.model.context, QUICK_LENGTH if size == "quick" else study.length)


def _layer(wanted: ReproduceOptions, preset: Preset | None) -> int | None:
    if wanted.layer is not None or preset is None:
        return wanted.layer
    return preset.layer


def _lengths(layer: int | None, preset: Preset | None) -> Lengths:
    """Those of the preset at its own layer; activations of another layer have other sizes."""
    return preset.lengths if preset is not None and layer == preset.layer else "scaled"


def _tokens(loaded: LoadedModel, wanted: ReproduceOptions, length: int, at_most: int) -> TokenSet:
    given, bos_before = wanted.tokens, wanted.bos_before or "document"
    assert given is not None
    if isinstance(given, TokenSet):
        cut = loaded.load_tokens(
            given.ids, at_most, length, bos_before=bos_before, documents=given.documents, name=given.name
        )
        return replace(cut, facts=given.facts | cut.facts)
    return loaded.load_tokens(
        given, at_most, length, column=wanted.column, revision=wanted.tokens_revision, bos_before=bos_before
    )


def _training_tokens(loaded: LoadedModel, wanted: ReproduceOptions, texts: dict[str, TokenSet]) -> TokenSet:
    """Training tokens of control SAEs, loaded once: for nano its training text, otherwise the measured token set."""
    given = "nano-train" if isinstance(wanted.tokens, str) and wanted.tokens == "nano" else wanted.tokens
    name = given if isinstance(given, str) else "given"
    length = min(TRAINING_LENGTH, loaded.model.context) if wanted.length is None else wanted.length
    if name not in texts:
        texts[name] = _tokens(loaded, replace(wanted, tokens=given), length, TRAINING_SEQUENCES)
    return texts[name]


def _folder(name: str, requests: list[StudyRun]) -> Path:
    """A run directory whose name is a hash of the requests, so that the same command finds it again."""
    deciding = [_deciding(request) for request in requests]
    model = requests[0].subject.loaded
    digest = hashlib.sha256(f"{fingerprint_sha256(model.model)}/{deciding}".encode()).hexdigest()
    return Path("runs") / f"{name}-{Path(model.model.name).name}-{digest[:8]}"


def _deciding(request: StudyRun) -> tuple[object, ...]:
    subject = request.subject
    saes = [sae.name for sae in subject.saes]
    return (
        request.study.name,
        request.size,
        subject.layer,
        saes,
        subject.seed,
        subject.lengths,
        request.tokens.sha256(),
    )
