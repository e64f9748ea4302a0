"""The claims of a finished study as last judged, from its stored file alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltmeter.reports.tables.claim_text import ClaimRow, Part, to_text
from tiltmeter.runs.run_directory import MANIFEST, read_manifest

CLAIMS = "claims.json"
"""The verdicts, removed when more is measured."""

STUDY, SEVERAL = "study", "studies"
"""`purpose` in the manifest of one study's run, and of a folder of several."""

MEASURED = (
    "Measured: of the estimates that a claim is about, the one farthest from supporting the claim, and its 95 % "
    "interval."
)

QUICK = "A quick run measures too few sequences to decide most claims; the default size decides more."


def studies_in(folder: Path, studies: Sequence[str]) -> list[str]:
    """Those of the studies that have a run in a folder made by `reproduce all`."""
    return [name for name in studies if (folder / name / MANIFEST).is_file()]


def stored_rows(folder: Path) -> list[ClaimRow]:
    """The claims of one study's run as last judged; none if they were not judged, or the file is damaged."""
    try:
        rows = json.loads((folder / CLAIMS).read_text(encoding="utf-8"))
        stored = [_row(row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    texts = (
        text for row in stored for text in (*row[:-2], *row.figures, *(word for part in row.parts for word in part))
    )
    return stored if all(isinstance(text, str) for text in texts) else []


def written_rows(rows: Sequence[ClaimRow]) -> str:
    """The text of the file that `stored_rows` reads."""
    return json.dumps([row.plain() for row in rows], indent=2, ensure_ascii=False) + "\n"


def _row(row: Mapping[str, Any]) -> ClaimRow:
    parts = tuple(Part(**part) for part in row["parts"])
    return ClaimRow(**{**row, "parts": parts, "figures": tuple(row["figures"])})


def table_of_claims(folder: Path, names: Sequence[str], rows: Sequence[ClaimRow]) -> str:
    """The table of claims of a study's run, or of all studies in a folder, for a terminal.

    Args:
        folder: the run.
        names: the studies in the folder; none if it is the run of one.
        rows: their claims.
    """
    words = [row.verdict for row in rows]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    width = shutil.get_terminal_size((140, 24)).columns
    tested = to_text([row for row in rows if row.verdict != "not tested"], max(width, 100))
    sizes = about_size([read_manifest(folder / name) for name in names or [""]])
    said = "\n".join([MEASURED, *lacking(folder, names), *sizes])
    return f"{tested}\n{_untested(rows)}\n{said}\n{len(rows)} claims: {counts}."


def about_size(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be said of quick runs, if one is among them."""
    return [QUICK] if any(one["identity"]["size"] == "quick" for one in manifests) else []


def lacking(folder: Path, names: Sequence[str]) -> list[str]:
    """A sentence for each study that was asked for and is not among those that have a run in a folder of several."""
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {"record": {}}
    if manifest["record"].get("purpose") != SEVERAL:
        return []
    absent = [name for name in manifest["identity"] if name not in names]
    return [f"{name} is not here; repeat the command that made the run." for name in absent]


def _untested(rows: Sequence[ClaimRow]) -> str:
    """The claims that were not tested, grouped by reason."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict == "not tested":
            reasons.setdefault(row.note, []).append(row.claim)
    told = ("\n  ".join([f"\nnot tested: {reason}", *claims]) for reason, claims in reasons.items())
    return "".join(f"{one}\n" for one in told)
