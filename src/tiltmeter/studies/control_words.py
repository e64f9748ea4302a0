"""What the verdicts on a control say, over its seeds, and what they mean for the verdict on the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tiltmeter.studies.claims import Verdict


def control_words(control: str, seeds: Mapping[int, Verdict]) -> dict[str, str]:
    """The fields of a row of the claims table that are about one control.

    Args:
        control: its name, which is the first field's.
        seeds: the verdicts on one claim, by seed.
    """
    return {
        control: _word(seeds),
        f"{control}_qualification": _qualification(seeds),
        f"{control}_effect": _effect(seeds),
    }


def remark_on_controls(own: Verdict, controls: Mapping[str, Mapping[int, Verdict]]) -> str:
    """On which controls the claim holds as well; where it holds on the model, also on which it does not."""
    if own.word == "not tested":
        return ""
    held = [f"{control}{_extent(seeds)}" for control, seeds in controls.items() if _holding(seeds)]
    rest = {control: seeds for control, seeds in controls.items() if not _holding(seeds)}
    untested = {control: seeds for control, seeds in rest.items() if "not tested" in _words(seeds)}
    sentences = _where_it_holds(own, held) + (_where_it_does_not(rest, untested) if own.holds else [])
    return " ".join([*sentences, *(f"Not tested on {name}: {_reason(seeds)}" for name, seeds in untested.items())])


def _where_it_holds(own: Verdict, held: Sequence[str]) -> list[str]:
    before, after = "Also holds" if own.holds else "Holds", ", not here" if own.word == "contradicted" else ""
    return [f"{before} on: {', '.join(held)}{after}."] if held else []


def _where_it_does_not(rest: Mapping[str, Mapping[int, Verdict]], untested: Collection[str]) -> list[str]:
    lost = [control for control, seeds in rest.items() if _words(seeds) == {"contradicted"}]
    undecided = [control for control in rest if control not in (*lost, *untested)]
    told = (("Does not hold on", lost), ("Inconclusive on", undecided))
    return [f"{said}: {', '.join(names)}." for said, names in told if names]


def _words(seeds: Mapping[int, Verdict]) -> set[str]:
    return {verdict.word for verdict in seeds.values()}


def _holding(seeds: Mapping[int, Verdict]) -> int:
    """In how many seeds the claim holds."""
    return sum(verdict.holds for verdict in seeds.values())


def _word(seeds: Mapping[int, Verdict]) -> str:
    """The verdict, or in how many seeds the claim holds where the verdicts differ."""
    words = _words(seeds)
    return words.pop() if len(words) == 1 else f"holds in {_holding(seeds)} of {len(seeds)} seeds"


def _extent(seeds: Mapping[int, Verdict]) -> str:
    """How far a claim that holds on a control does so."""
    part = ["in part"] if "supported in part" in _words(seeds) else []
    some = [f"{_holding(seeds)} of {len(seeds)} seeds"] if len(seeds) > 1 else []
    return f" ({', '.join(part + some)})" if part + some else ""


def _qualification(seeds: Mapping[int, Verdict]) -> str:
    said = {seed: verdict.qualification for seed, verdict in seeds.items() if verdict.qualification}
    return " ".join(said.values() if len(seeds) == 1 else (f"Seed {seed}: {text}" for seed, text in said.items()))


def _effect(seeds: Mapping[int, Verdict]) -> str:
    """The number of the estimate farthest from supporting the claim in any seed, with its interval, or its range.

    The range over seeds is that of this one estimate, since numbers of different estimates cannot be compared.
    """
    found = [verdict.deciding for verdict in seeds.values() if verdict.deciding]
    deciding = min(found, key=lambda one: one.distance, default=None)
    if deciding is None:
        return ""
    if len(seeds) == 1:
        return f"{deciding.value:.3g}{deciding.unit} [{deciding.low:.3g}, {deciding.high:.3g}]"
    values = [
        one.value
        for verdict in seeds.values()
        for one in verdict.estimates
        if one.label == deciding.label and one.decides and one.decision
    ]
    return f"{min(values):.3g}{deciding.unit} to {max(values):.3g}{deciding.unit} ({len(values)} seeds)"


def _reason(seeds: Mapping[int, Verdict]) -> str:
    return next(verdict.reason for verdict in seeds.values() if verdict.word == "not tested")
