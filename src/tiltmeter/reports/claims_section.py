"""The claims of a report as its page has them: under headings, with notes that several share said once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tiltmeter.reports.tables.claim_text import ClaimRow

OTHER = "Other claims"
"""The heading of claims that have none."""


class ClaimShown(NamedTuple):
    """A claim, and the note beside it."""

    row: ClaimRow
    note: str
    """What is said beside this claim alone."""
    mark: int | None
    """The number of a note that other claims have, too."""


class ClaimGroup(NamedTuple):
    """Claims under one heading."""

    study: str
    title: str
    figures: tuple[str, ...]
    """Names of the figures that show them."""
    claims: list[ClaimShown]


class ClaimsSection(NamedTuple):
    """All claims of a page."""

    groups: list[ClaimGroup]
    notes: list[str]
    """Notes of several claims; a mark of 1 means the first."""


def claims_section(rows: Sequence[ClaimRow]) -> ClaimsSection:
    """Group claims by study and topic, in their order, and take out the notes that several have."""
    times = Counter(row.note for row in rows if row.note)
    notes = [note for note, number in times.items() if number > 1]
    groups: dict[tuple[str, str], list[ClaimRow]] = {}
    for row in rows:
        groups.setdefault((row.study, row.topic or OTHER), []).append(row)
    return ClaimsSection([_group(*key, own, notes) for key, own in groups.items()], notes)


def _group(study: str, title: str, rows: Sequence[ClaimRow], notes: Sequence[str]) -> ClaimGroup:
    figures = tuple(dict.fromkeys(figure for row in rows for figure in row.figures))
    shown = [ClaimShown(row, "", notes.index(row.note) + 1) if row.note in notes else _alone(row) for row in rows]
    return ClaimGroup(study, title, figures, shown)


def _alone(row: ClaimRow) -> ClaimShown:
    return ClaimShown(row, row.note, None)
