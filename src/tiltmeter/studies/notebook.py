"""Studies and reports as Python functions: `tm.reproduce`, `tm.claims` and `tm.report`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.sweep import publish, short_table
from tiltmeter.runs.user_paths import user_path
from tiltmeter.studies.report import claims_rows, claims_text, is_study, publish_all, publish_study, studies_in
from tiltmeter.studies.reproduce import ReproduceOptions
from tiltmeter.studies.reproduce import reproduce as run_study


@dataclass(frozen=True)
class Reproduced:
    """What a study found."""

    page: Path
    """Its report."""
    claims: pd.DataFrame
    """The verdict on each claim."""
    text: str

    def __str__(self) -> str:
        """The table of claims."""
        return self.text


def reproduce(study: str, *, out: str | Path | None = None, **options: Any) -> Reproduced:
    """Reproduce a study (`lee2024`), or `all`, as `tiltmeter reproduce` does.

    Args:
        study: its name.
        out: the run directory; an interrupted study goes on there. By default one in `runs`, whose name depends on what
            is measured.
        options: fields of `ReproduceOptions`: `size="quick"`, `figures=("2",)`, `model` and `tokens` (names, or objects
            that `load_model` and `load_tokens` take), `layer`, `saes` (names), `control="none"`, `seed` and others.

    Raises:
        TiltmeterError: an option does not exist or has a wrong value; a model or tokens cannot be loaded.
    """
    known = [field.name for field in fields(ReproduceOptions)]
    if unknown := [name for name in options if name not in known]:
        raise TiltmeterError(f"reproduce has no option {unknown[0]!r}; choose from {', '.join(known)}.")
    for name in {"figures", "saes"} & options.keys():
        if not isinstance(options[name], list | tuple):
            raise TiltmeterError(f"{name} was {options[name]!r}; give a tuple: ({options[name]!r},).")
        options[name] = tuple(options[name])
    wanted = ReproduceOptions(**options)
    page, text = run_study(study, wanted, None if out is None else user_path(out))
    return Reproduced(page, claims(page.parent), text)


def claims(run: str | Path) -> pd.DataFrame:
    """The verdicts of a finished study, or of all in a folder: a row for each claim.

    Raises:
        TiltmeterError: the folder is no run of a study.
    """
    return pd.DataFrame([row._asdict() for row in claims_rows(run)]).drop(columns="parts")


def report(run: str | Path) -> Path:
    """Write the report of a finished run again: of a sweep, of crossings, of a comparison or of a study.

    Returns:
        Its path.

    Raises:
        TiltmeterError: the folder is not a finished run.
    """
    return publish_again(user_path(run))[0]


def publish_again(folder: Path) -> tuple[Path, str]:
    """Write a report again; return its path and its main table as text.

    Raises:
        TiltmeterError: the folder is not a finished run.
    """
    if names := studies_in(folder):
        for name in names:
            publish_study(folder / name)
        return publish_all(folder), claims_text(folder)
    if is_study(folder):
        return publish_study(folder), claims_text(folder)
    return publish(folder), short_table(folder)
