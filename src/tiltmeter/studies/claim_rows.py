"""Verdicts in words: a row of the claims table for each claim, with the verdicts on the controls beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiltmeter.analysis.estimates import Decision, Estimate
from tiltmeter.reports.tables.claim_text import ClaimRow, Part
from tiltmeter.studies.claims import Verdict
from tiltmeter.studies.control_words import control_words, remark_on_controls

DECISIONS: dict[Decision, str] = {"inside": "as claimed", "outside": "not as claimed", "undecided": "undecided"}


def claim_rows(
    study: str, own: Sequence[Verdict], controls: Mapping[str, Mapping[int, Sequence[Verdict]]], published: bool
) -> list[ClaimRow]:
    """Put verdicts into words.

    Args:
        study: the name of the study.
        own: verdicts on the model.
        controls: for each control and seed, verdicts on the same claims.
        published: whether to show the published numbers, which are for GPT-2 small.
    """
    return [_row(study, verdict, _of_claim(verdict.claim.name, controls), published) for verdict in own]


def _of_claim(name: str, controls: Mapping[str, Mapping[int, Sequence[Verdict]]]) -> dict[str, dict[int, Verdict]]:
    """The verdicts on one claim, for each control and seed on which it was judged."""
    found = {
        control: {seed: one for seed, verdicts in seeds.items() for one in verdicts if one.claim.name == name}
        for control, seeds in controls.items()
    }
    return {control: seeds for control, seeds in found.items() if seeds}


def _row(study: str, own: Verdict, controls: Mapping[str, Mapping[int, Verdict]], published: bool) -> ClaimRow:
    claim = own.claim
    found = own.deciding
    number = claim.published if published else None
    notes = (own.reason, remark_on_controls(own, controls))
    words: dict[str, Any] = {}
    for control, seeds in controls.items():
        words |= control_words(control, seeds)
    return ClaimRow(
        study=study,
        name=claim.name,
        claim=claim.sentence,
        source=claim.source,
        verdict=own.word,
        qualification=own.qualification,
        effect=f"{found.value:.3g}{found.unit}" if found else "",
        interval=f"[{found.low:.3g}, {found.high:.3g}]" if found else "",
        deciding=_joint(found) if found else "",
        published=f"{number.value} ({number.source})" if number else "",
        note=" ".join(filter(None, notes)),
        remark=claim.remark,
        parts=(*(_part("", one) for one in own.estimates), *_control_parts(controls)),
        **words,
    )


def _control_parts(controls: Mapping[str, Mapping[int, Verdict]]) -> list[Part]:
    return [
        _part(f"{control}, seed {seed}", one)
        for control, seeds in controls.items()
        for seed, verdict in seeds.items()
        for one in verdict.estimates
    ]


def _part(on: str, one: Estimate) -> Part:
    if one.decision is None:
        return Part(on, one.label, "", sample=_sequences(one))
    return Part(on, one.label, str(one), str(one.region), DECISIONS[one.decision], _joint(one), _sequences(one))


def _joint(one: Estimate) -> str:
    return f"[{one.joint_low:.3g}, {one.joint_high:.3g}]"


def _sequences(one: Estimate) -> str:
    return f"{one.n} sequences" + ("" if one.documents is None else f" of {one.documents} documents")
