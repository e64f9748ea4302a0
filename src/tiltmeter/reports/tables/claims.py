"""The table of claims: what papers say, what a run says of it, and what random weights say."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from tiltmeter.reports.tables import latex

NARROW = 24
"""Letters that a sentence needs in a line at least."""


class ClaimRow(NamedTuple):
    """A claim and its verdicts, in words."""

    study: str
    name: str
    claim: str
    """The sentence, as it is tested."""
    source: str
    """Where the paper says so."""
    verdict: str
    """`supported`, `contradicted`, `inconclusive` or `not tested`."""
    effect: str
    """The number that decides, with its units; empty where nothing was tested."""
    interval: str
    """Its 95 % interval."""
    published: str
    """What the paper has; empty where it gives no number."""
    control: str
    """The verdict on random weights; empty where there is no control."""
    control_effect: str
    note: str
    """Why it was not tested, or what the control means for it."""
    parts: tuple[str, ...] = ()
    """A line for each part of the test."""

    @property
    def measured(self) -> str:
        """The number with its interval."""
        return " ".join(filter(None, (self.effect, self.interval)))


_HEADS = {"verdict": "verdict", "measured": "measured", "published": "published", "control": "random weights"}


def to_frame(rows: Sequence[ClaimRow]) -> pd.DataFrame:
    """A row per claim, a column per field; the parts of a test stand in one cell, a line each."""
    cells = [row._replace(parts=()) for row in rows]
    frame = pd.DataFrame(cells, columns=list(ClaimRow._fields), dtype=object)
    return frame.assign(parts=["\n".join(row.parts) for row in rows])


def to_csv(rows: Sequence[ClaimRow]) -> bytes:
    """The frame as CSV, UTF-8."""
    return to_frame(rows).to_csv(index=False, lineterminator="\n").encode()


def to_latex(rows: Sequence[ClaimRow], title: str) -> bytes:
    """A booktabs table: claim with its source, verdicts, and numbers."""
    cells = {head: [getattr(row, name) for row in rows] for name, head in _HEADS.items()}
    index = pd.Index([f"{row.claim} ({row.source})" if row.source else row.claim for row in rows], name="claim")
    return latex.document([latex.table(title, pd.DataFrame(cells, index), r"p{0.4\textwidth}lp{0.16\textwidth}ll")])


def to_text(rows: Sequence[ClaimRow], width: int) -> str:
    """A table of at most so many columns for a terminal; where it is too narrow for one, a paragraph per claim."""
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
