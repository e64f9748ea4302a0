"""Claims: sentences of papers as tests, and their verdicts.

A claim is one or more quantities with the region in which the paper has each. It is supported where all lie inside,
contradicted where one lies outside, and inconclusive otherwise: where the interval of one reaches across the border.
Everything is decided at a level at which all quantities of a study hold together with 95 %
(`tiltmeter.analysis.estimates`).

The same claims are judged on random weights. What holds there, too, says nothing about what a model has learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from tiltmeter.analysis.estimates import FEWEST, Estimand, Estimate, estimate
from tiltmeter.studies.results import NotMeasured, Results

Word = Literal["supported", "contradicted", "inconclusive", "not tested"]


class Published(NamedTuple):
    """A number that a paper, or its code, gives for GPT-2 small."""

    value: str
    source: str


class Claim(NamedTuple):
    """A sentence of a paper, as a test."""

    name: str
    """Short and stable, in kebab case."""
    sentence: str
    """What is claimed, as it is tested."""
    source: str
    """Where the paper says so: section, figure."""
    estimands: Callable[[Results], Sequence[Estimand]]
    """What must lie where. Raises `NotMeasured` where the run has not what it needs."""
    published: Published | None = None
    remark: str = ""
    """Where a definition, a length or a margin had to be chosen: what was chosen, and why."""


class Verdict(NamedTuple):
    """What a run says of a claim."""

    claim: Claim
    word: Word
    findings: tuple[Estimate, ...] = ()
    reason: str = ""
    """Why it was not tested."""

    @property
    def deciding(self) -> Estimate | None:
        """The quantity that the verdict rests on: the one that lies least inside its region."""
        defined = [finding for finding in self.findings if finding.where]
        return min(defined, key=lambda finding: finding.distance, default=None)


def judge(claims: Sequence[Claim], results: Results) -> list[Verdict]:
    """The verdict on each claim, all of them holding together with 95 %."""
    wanted: dict[str, Sequence[Estimand]] = {}
    reasons: dict[str, str] = {}
    for claim in claims:
        try:
            wanted[claim.name] = claim.estimands(results)
        except NotMeasured as error:
            reasons[claim.name] = str(error)
    together = max(1, sum(map(len, wanted.values())))
    return [
        _verdict(claim, [estimate(quantity, together) for quantity in wanted[claim.name]])
        if claim.name in wanted
        else Verdict(claim, "not tested", reason=reasons[claim.name])
        for claim in claims
    ]


def _verdict(claim: Claim, findings: Sequence[Estimate]) -> Verdict:
    found = {finding.where for finding in findings}
    if None in found:
        undefined = next(finding for finding in findings if finding.where is None)
        return Verdict(claim, "not tested", tuple(findings), _why(undefined))
    word: Word = "contradicted" if "outside" in found else "supported" if found == {"inside"} else "inconclusive"
    return Verdict(claim, word, tuple(findings))


def _why(finding: Estimate) -> str:
    if finding.n < FEWEST:
        return f"{finding.n} sequences are too few; measure at least {FEWEST}."
    return f"Not defined here: {finding.what}."


def remark_on_control(own: Verdict, control: Verdict | None) -> str:
    """What the verdict on random weights means for that on the model."""
    if control is None or own.word == "not tested":
        return ""
    if control.word == "not tested":
        return f"Not tested on random weights: {control.reason}"
    if own.word == "supported" and control.word == "supported":
        return "Holds on random weights, too: that it holds says nothing about what the model has learned."
    if own.word == "supported" and control.word == "contradicted":
        return "Does not hold on random weights (one draw of them): it comes with training."
    if own.word == "supported":
        return "On random weights it cannot be told."
    if control.word != "supported":
        return ""
    return "Holds on random weights, not here." if own.word == "contradicted" else "Holds on random weights."


def by_name(verdicts: Sequence[Verdict]) -> Mapping[str, Verdict]:
    """Verdicts, by the names of their claims."""
    return {verdict.claim.name: verdict for verdict in verdicts}
