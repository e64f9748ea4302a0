"""Rows of the claims table, and the table as text. Without pandas, so that stored claims are printed at once."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

NARROW = 24
"""Minimum width, in characters, of a column of sentences."""


class OnControl(NamedTuple):
    """The verdict on one control, as text."""

    name: str
    verdict: str
    qualification: str
    effect: str


class Part(NamedTuple):
    """One number that a claim is about, as text."""

    on: str
    """The control and seed; empty for the model itself."""
    label: str
    """What it is: `KL: real-difference ÷ real-mixture at length 21`."""
    measured: str
    """The number with its 95 % interval. Empty if it is not defined."""
    claimed: str = ""
    """Where the claim has it: `above 1.25`."""
    decision: str = ""
    """`as claimed`, `not as claimed` or `undecided`."""
    deciding: str = ""
    """The interval that decides, which holds together with those of the other numbers."""
    sample: str = ""
    """How many sequences, and documents."""

    def __str__(self) -> str:
        """Return a line of text."""
        label = f"{self.on}: {self.label}" if self.on else self.label
        if not self.measured:
            return f"{label}: not defined here ({self.sample})"
        decided = f"(deciding interval {self.deciding}; {self.sample})"
        return f"{label}: {self.measured}, claimed {self.claimed}: {self.decision} {decided}"


class ClaimRow(NamedTuple):
    """One claim and its verdicts, as text."""

    study: str
    name: str
    claim: str
    """The claim, as it is tested."""
    source: str
    """Where the paper makes the claim."""
    verdict: str
    """`supported`, `supported in part`, `contradicted`, `inconclusive` or `not tested`."""
    qualification: str
    """Where on the grid of lengths the claim holds and where it does not. Empty if there is nothing to add."""
    effect: str
    """The number that decides, with its units. Empty if nothing was tested."""
    interval: str
    """Its 95 % interval."""
    published: str
    """The paper's number. Empty if it reports none."""
    deciding: str = ""
    """The interval that decides, which holds together with those of all claims of the study."""
    initialised: str = ""
    """The verdict on an initialised model, or in how many seeds the claim holds. Empty if there is none."""
    initialised_qualification: str = ""
    initialised_effect: str = ""
    """The number on which it rests, with its interval, or its range over seeds."""
    shuffled: str = ""
    """The same for the trained model with shuffled weights."""
    shuffled_qualification: str = ""
    shuffled_effect: str = ""
    note: str = ""
    """Why the claim was not tested, or on which controls it holds."""
    remark: str = ""
    """Definitions, lengths and margins that the paper leaves open."""
    topic: str = ""
    """The heading under which the report has it."""
    figures: tuple[str, ...] = ()
    """Names of the figures that show it, which are the stems of their files."""
    parts: tuple[Part, ...] = ()
    """The numbers that the claim is about."""

    def plain(self) -> dict[str, Any]:
        """Return the row as JSON has it."""
        return self._asdict() | {"parts": [part._asdict() for part in self.parts]}

    @property
    def measured(self) -> str:
        """Return the number with its interval."""
        return " ".join(filter(None, (self.effect, self.interval)))

    @property
    def qualifications(self) -> list[str]:
        """What must be said beside the verdicts, in sentences."""
        said = [f"On {one.name}: {one.qualification}" for one in self.controls if one.qualification]
        return [self.qualification, *said] if self.qualification else said

    @property
    def controls(self) -> list[OnControl]:
        """The verdicts on the controls on which the claim was judged."""
        first = OnControl("initialised", self.initialised, self.initialised_qualification, self.initialised_effect)
        second = OnControl("shuffled", self.shuffled, self.shuffled_qualification, self.shuffled_effect)
        return [one for one in (first, second) if one.verdict]


HEADS = {name: name for name in ("verdict", "measured", "published", "initialised", "shuffled")}
"""The columns of the table: fields of a row, and their heads."""


def to_text(rows: Sequence[ClaimRow], width: int) -> str:
    """Format a table of at most this many characters' width, or a paragraph per claim if that is too narrow."""
    shown = {name: [str(getattr(row, name)) for row in rows] for name in HEADS}
    shown = {name: values for name, values in shown.items() if any(values)}
    widths = {name: max(map(len, (HEADS[name], *values))) for name, values in shown.items()}
    left = width - sum(each + 2 for each in widths.values())
    if left < NARROW:
        return "\n\n".join(_paragraph(row, width) for row in rows)
    lines = []
    head = "  ".join([*(HEADS[name].ljust(widths[name]) for name in widths), "claim"])
    for at, row in enumerate(rows):
        first = "".join(shown[name][at].ljust(widths[name] + 2) for name in widths)
        lines += textwrap.wrap(row.claim, width, initial_indent=first, subsequent_indent=" " * len(first)) or [first]
        indent = " " * (len(first) + 2)
        for text in row.qualifications:
            lines += textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
    return "\n".join([head, *(line.rstrip() for line in lines)])


def _paragraph(row: ClaimRow, width: int) -> str:
    numbers = [row.verdict, row.measured, row.published and f"published {row.published}"]
    facts = "; ".join(filter(None, (*numbers, *(f"{one.name}: {one.verdict}" for one in row.controls))))
    below = [line for text in (facts, *row.qualifications) for line in _indented(text, width)]
    return "\n".join([*textwrap.wrap(row.claim, width), *below])


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")
