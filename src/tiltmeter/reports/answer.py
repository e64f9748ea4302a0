"""What a report says first: how many claims came out how, and the findings that matter most."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tiltmeter.reports.tables.claim_text import ClaimRow

VERDICTS = ("supported", "supported in part", "contradicted", "inconclusive", "not tested")
"""In the order in which they are counted."""

OUTCOMES = {
    "supported": "It holds here",
    "supported in part": "It holds here in part",
    "contradicted": "It does not hold here",
    "inconclusive": "This run does not decide it",
    "not tested": "It was not tested",
}
"""What a verdict means, in words."""


LONGEST = 200
"""Characters of a qualification that is said in the summary and beside a verdict; a longer one is with the test."""


class Finding(NamedTuple):
    """A claim that matters, and what came of it."""

    verdict: str
    claim: str
    outcome: str
    """In a sentence: what was found, and on what the verdict rests."""
    study: str
    name: str
    """The claim's name, which its place on the page has."""


class Answer(NamedTuple):
    """What came of a study, in a few lines."""

    heading: str
    """The work, where a report has several; else empty."""
    counts: list[tuple[str, int]]
    """How many claims have each verdict."""
    findings: list[Finding]
    picture: str
    """The name of the figure that shows the first of them; empty if there is none."""

    @property
    def total(self) -> int:
        """How many claims there are."""
        return sum(number for _, number in self.counts)


def answer(heading: str, rows: Sequence[ClaimRow], headlines: Sequence[str], drawn: Collection[str]) -> Answer:
    """Summarise the claims of one study.

    Args:
        heading: the work; empty where the report has no other.
        rows: its claims.
        headlines: the names of those that matter most.
        drawn: the names of the figures that the report has.
    """
    words = [row.verdict for row in rows]
    by_name = {row.name: row for row in rows}
    chosen = [by_name[name] for name in headlines if name in by_name]
    pictures = [figure for row in chosen for figure in row.figures if figure in drawn]
    counts = [(word, words.count(word)) for word in VERDICTS if word in words]
    found = [Finding(row.verdict, row.claim, _outcome(row), row.study, row.name) for row in chosen]
    return Answer(heading, counts, found, next(iter(pictures), ""))


def _outcome(row: ClaimRow) -> str:
    """What was found: the words of the verdict, the number that it rests on, and where it turns if that is short."""
    outcome = OUTCOMES[row.verdict]
    if row.verdict == "not tested":
        return f"{outcome}: {row.note or 'the run lacks what it needs.'}"
    number = next((f": {part.label} is {part.measured}" for part in row.parts if part.measured == row.measured), "")
    turns = row.qualification if len(row.qualification) <= LONGEST else ""
    return " ".join(filter(None, [f"{outcome}{number}.", turns, row.note]))
