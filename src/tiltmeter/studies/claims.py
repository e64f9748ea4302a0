"""Claims of papers as tests, and the verdicts on them.

A claim is one or more numbers (estimands), each with the region that the paper claims for it. The verdict is
*supported* if the interval of every number lies inside its region, *contradicted* if one lies outside, and
*inconclusive* otherwise: if an interval crosses a bound of its region. The intervals of all numbers of a study hold
together with 95 % (`tiltmeter.analysis.estimates`).

A claim about perturbations of equal length is decided at the paper's lengths, and measured at every step of the grid.
Where the other steps are not as claimed, the verdict is *supported in part*, and its qualification says where it holds
and where it turns (`tiltmeter.studies.scans`). The intervals of the other steps of one claim hold together with 95 %:
they are a family of their own, so that looking at the whole grid does not cost the verdicts power.

The same claims are judged on controls. A claim that also holds there says nothing about what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from tiltmeter.analysis.estimates import MIN_SEQUENCES, Estimand, Estimate, estimate
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.scans import qualification

Word = Literal["supported", "supported in part", "contradicted", "inconclusive", "not tested"]


class Published(NamedTuple):
    """A number that a paper, or its code, reports for GPT-2 small."""

    value: str
    source: str


class Claim(NamedTuple):
    """A sentence of a paper, as a test."""

    name: str
    """A short, stable identifier in kebab case."""
    sentence: str
    """The claim, worded as it is tested."""
    source: str
    """Where the paper says so: section, figure."""
    estimands: Callable[[Results], Sequence[Estimand]]
    """Computes the numbers that the claim is about, each with its region. Raises `NotMeasured` if the run lacks results
    that they need."""
    published: Published | None = None
    """The paper's own number, if it has one."""
    remark: str = ""
    """Definitions, lengths and margins chosen here because the paper leaves them open, and why."""


class Verdict(NamedTuple):
    """The result of testing a claim on a run."""

    claim: Claim
    word: Word
    estimates: tuple[Estimate, ...] = ()
    reason: str = ""
    """Why the claim was not tested."""

    @property
    def holds(self) -> bool:
        """Whether the claim is supported, everywhere or in part."""
        return self.word in ("supported", "supported in part")

    @property
    def qualification(self) -> str:
        """Where on the grid the claim holds and where it does not; empty where it holds everywhere."""
        return "" if self.word == "not tested" else qualification(self.estimates)

    @property
    def deciding(self) -> Estimate | None:
        """The estimate farthest from supporting the claim, in half widths of its interval: the verdict rests on it."""
        defined = [one for one in self.estimates if one.decides and one.decision]
        return min(defined, key=lambda one: one.distance, default=None)


def judge(claims: Sequence[Claim], results: Results) -> list[Verdict]:
    """Judge each claim, at a level at which the intervals of all deciding numbers hold together with 95 %."""
    wanted: dict[str, Sequence[Estimand]] = {}
    reasons: dict[str, str] = {}
    for claim in claims:
        try:
            wanted[claim.name] = claim.estimands(results)
        except NotMeasured as error:
            reasons[claim.name] = error.reason
    comparisons = max(1, sum(quantity.decides for found in wanted.values() for quantity in found))
    return [
        _verdict(claim, _estimates([results.with_documents(one) for one in wanted[claim.name]], comparisons))
        if claim.name in wanted
        else Verdict(claim, "not tested", reason=reasons[claim.name])
        for claim in claims
    ]


def _estimates(wanted: Sequence[Estimand], comparisons: int) -> list[Estimate]:
    """What decides, at the level of the study; the other steps of the claim's grid, at a level of their own."""
    others = sum(not quantity.decides for quantity in wanted)
    return [estimate(quantity, comparisons if quantity.decides else others) for quantity in wanted]


def _verdict(claim: Claim, estimates: Sequence[Estimate]) -> Verdict:
    deciding = [one for one in estimates if one.decides]
    decisions = {one.decision for one in deciding}
    if None in decisions:
        undefined = next(one for one in deciding if one.decision is None)
        return Verdict(claim, "not tested", tuple(estimates), _why(undefined))
    word: Word = (
        "contradicted" if "outside" in decisions else "supported" if decisions == {"inside"} else "inconclusive"
    )
    if word == "supported" and any(one.decision == "outside" for one in estimates):
        word = "supported in part"
    return Verdict(claim, word, tuple(estimates))


def _why(undefined: Estimate) -> str:
    if undefined.n < MIN_SEQUENCES:
        return f"{undefined.n} sequences are too few; measure at least {MIN_SEQUENCES}."
    if undefined.independent < MIN_SEQUENCES:
        return f"{undefined.independent} documents are too few; take tokens of at least {MIN_SEQUENCES}."
    return f"Not defined here: {undefined.label}."
