"""Verdicts in words: a row of the claims table for each claim, with the verdict on random weights beside it."""

from __future__ import annotations

from collections.abc import Sequence

from tiltmeter.analysis.estimates import Decision, Estimate
from tiltmeter.reports.tables.claim_text import ClaimRow
from tiltmeter.studies.claims import Verdict

DECISIONS: dict[Decision, str] = {"inside": "as claimed", "outside": "not as claimed", "undecided": "undecided"}


def claim_rows(
    study: str, own: Sequence[Verdict], control: Sequence[Verdict] | None, published: bool
) -> list[ClaimRow]:
    """Put verdicts into words.

    Args:
        study: the name of the study.
        own: verdicts on the model.
        control: verdicts on random weights, on the same claims; None if there is no control.
        published: whether to show the published numbers, which are for GPT-2 small.
    """
    beside = {verdict.claim.name: verdict for verdict in control or []}
    return [_row(study, verdict, beside.get(verdict.claim.name), published) for verdict in own]


def remark_on_control(own: Verdict, control: Verdict | None) -> str:
    """What the verdict on random weights implies for the verdict on the model."""
    if control is None or own.word == "not tested":
        return ""
    if control.word == "not tested":
        return f"Not tested on random weights: {control.reason}"
    if own.holds and control.holds:
        where = " in part" if "supported in part" in (own.word, control.word) else ""
        return f"Also holds{where} on random weights, so it says nothing about what the model has learned."
    if own.holds and control.word == "contradicted":
        return "Does not hold on random weights (one draw of them): it comes with training."
    if own.holds:
        return "Inconclusive on random weights."
    if not control.holds:
        return ""
    return "Holds on random weights, not here." if own.word == "contradicted" else "Holds on random weights."


def _row(study: str, own: Verdict, control: Verdict | None, published: bool) -> ClaimRow:
    claim = own.claim
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
        qualification=own.qualification,
        effect=effect,
        interval=interval,
        published=f"{number.value} ({number.source})" if number else "",
        control=control.word if control else "",
        control_qualification=control.qualification if control else "",
        control_effect=" ".join(_effect(control)) if control else "",
        note=" ".join(filter(None, notes)),
        parts=(*remark, *_parts(own, ""), *(_parts(control, "random weights: ") if control else ())),
    )


def _effect(verdict: Verdict) -> tuple[str, str]:
    found = verdict.deciding
    return (f"{found.value:.3g}{found.unit}", f"[{found.low:.3g}, {found.high:.3g}]") if found else ("", "")


def _parts(verdict: Verdict, before: str) -> list[str]:
    return [f"{before}{_part(one)}" for one in verdict.estimates]


def _part(one: Estimate) -> str:
    if one.decision is None:
        return f"{one.label}: not defined here ({_sequences(one)})"
    return (
        f"{one.label}: {one}, claimed {one.region}: {DECISIONS[one.decision]} "
        f"(joint interval {one.joint_low:.3g} to {one.joint_high:.3g}; {_sequences(one)})"
    )


def _sequences(one: Estimate) -> str:
    return f"{one.n} sequences" + ("" if one.documents is None else f" of {one.documents} documents")
