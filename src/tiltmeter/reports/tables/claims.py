"""The claims table: each claim of a paper, the run's verdict, and the verdict on random weights."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from tiltmeter.reports.tables import latex

NARROW = 24
"""Minimum width, in characters, of a column of sentences."""


class ClaimRow(NamedTuple):
    """One claim and its verdicts, as text."""

    study: str
    name: str
    claim: str
    """The claim, as it is tested."""
    source: str
    """Where the paper makes the claim."""
    verdict: str
    """`supported`, `contradicted`, `inconclusive` or `not tested`."""
    effect: str
    """The number that decides, with its units. Empty if nothing was tested."""
    interval: str
    """Its 95 % interval."""
    published: str
    """The paper's number. Empty if it reports none."""
    control: str
    """The verdict on random weights. Empty if there is no control."""
    control_effect: str
    note: str
    """Why the claim was not tested, or what the control implies for it."""
    parts: tuple[str, ...] = ()
    """One line per part of the test."""

    @property
    def measured(self) -> str:
        """Return the number with its interval."""
        return " ".join(filter(None, (self.effect, self.interval)))


_HEADS = {"verdict": "verdict", "measured": "measured", "published": "published", "control": "random weights"}


def to_frame(rows: Sequence[ClaimRow]) -> pd.DataFrame:
    """Return one row per claim and one column per field. The parts of a test share a cell, one per line."""
    cells = [row._replace(parts=()) for row in rows]
    frame = pd.DataFrame(cells, columns=list(ClaimRow._fields), dtype=object)
    return frame.assign(parts=["\n".join(row.parts) for row in rows])


def to_csv(rows: Sequence[ClaimRow]) -> bytes:
    """Write the frame as CSV in UTF-8."""
    return to_frame(rows).to_csv(index=False, lineterminator="\n").encode()


def to_latex(rows: Sequence[ClaimRow], title: str) -> bytes:
    """Write a booktabs table of claims with their sources, verdicts and numbers."""
    cells = {head: [getattr(row, name) for row in rows] for name, head in _HEADS.items()}
    index = pd.Index([f"{row.claim} ({row.source})" if row.source else row.claim for row in rows], name="claim")
    return latex.document([latex.table(title, pd.DataFrame(cells, index), r"p{0.4\textwidth}lp{0.16\textwidth}ll")])


def to_text(rows: Sequence[ClaimRow], width: int) -> str:
    """Format a table of at most this many characters' width, or a paragraph per claim if that is too narrow."""
    shown = {name: [str(getattr(row, name)) for row in rows] for name in _HEADS}
    shown = {name: values for name, values in shown.items() if any(values)}
    widths = {name: max(map(len, (_HEADS[name], *values))) for name, values in shown.items()}
    left = width - sum(each + 2 for each in widths.values())
    if left < NARROW:
        return "\n\n".join(_paragraph(row, width) for row in rows)
    lines = []
    head = "  ".join([*(_HEADS[name].ljust(widths[name]) for name in widths), "claim"])
    for at, row in enumerate(rows):
        first = "".join(shown[name][at].ljust(widths[name] + 2) for name in widths)
        lines += textwrap.wrap(row.claim, width, initial_indent=first, subsequent_indent=" " * len(first)) or [first]
    return "\n".join([head, *(line.rstrip() for line in lines)])


def _paragraph(row: ClaimRow, width: int) -> str:
    numbers = [row.verdict, row.measured, row.published and f"published {row.published}"]
    control = row.control and f"on random weights {row.control}"
    facts = "; ".join(filter(None, (*numbers, control)))
    return "\n".join(
        [*textwrap.wrap(row.claim, width), *textwrap.wrap(facts, width, initial_indent="  ", subsequent_indent="  ")]
    )
