"""Verdicts of a study in words: a row for each claim, that of random weights beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiltmeter.analysis.estimates import Estimate
from tiltmeter.reports.tables.claims import ClaimRow
from tiltmeter.studies.claims import Verdict, by_name, remark_on_control


def verdict_rows(
    study: str, own: Sequence[Verdict], control: Sequence[Verdict] | None, published: bool
) -> list[ClaimRow]:
    """Put verdicts in words.

    Args:
        study: its name.
        own: verdicts on the model.
        control: verdicts on random weights, of the same claims; None where there is no control.
        published: whether the papers' numbers belong beside them, since the model is theirs.
    """
    beside = by_name(control or [])
    return [_row(study, verdict, beside, published) for verdict in own]


def _row(study: str, own: Verdict, beside: Mapping[str, Verdict], published: bool) -> ClaimRow:
    claim, control = own.claim, beside.get(own.claim.name)
    effect, interval = _effect(own)
    number = claim.published if published else None
    notes = (own.reason, remark_on_control(own, control))
    remark = (claim.remark,) if claim.remark else ()
    return ClaimRow(
        study=study,
        name=claim.name,
        claim=claim.sentence,
        source=claim.source,
        verdict=own.word,
        effect=effect,
        interval=interval,
        published=f"{number.value} ({number.source})" if number else "",
        control=control.word if control else "",
        control_effect=" ".join(_effect(control)) if control else "",
        note=" ".join(filter(None, notes)),
        parts=(*remark, *_parts(own, ""), *(_parts(control, "random weights: ") if control else ())),
    )


def _effect(verdict: Verdict) -> tuple[str, str]:
    found = verdict.deciding
    return (f"{found.value:.3g}{found.unit}", f"[{found.low:.3g}, {found.high:.3g}]") if found else ("", "")


def _parts(verdict: Verdict, before: str) -> list[str]:
    return [f"{before}{_part(finding)}" for finding in verdict.findings]


def _part(finding: Estimate) -> str:
    if finding.where is None:
        return f"{finding.what}: not defined here ({finding.n} sequences)"
    words = {"inside": "as claimed", "outside": "not as claimed", "open": "cannot be told"}
    return (
        f"{finding.what}: {finding}, claimed {finding.region}: {words[finding.where]} "
        f"({finding.joint_low:.3g} to {finding.joint_high:.3g} with all others; {finding.n} sequences)"
    )
