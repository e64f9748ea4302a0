"""Claims over a whole grid: the same number at every step, and in words where it is as claimed and where it is not.

"At equal length, A changes the output more than B" can hold at the lengths that a paper shows and be reversed at
others. A scan measures the number at every step. The paper's own steps decide the verdict; the others qualify it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from tiltmeter.analysis.estimates import Estimand, Estimate, Place

AS_CLAIMED, REVERSED = "as claimed", "reversed"

MOST_NAMED = 3
"""The most series that are named in one sentence."""

OUTCOMES = {"inside": AS_CLAIMED, "outside": "not as claimed", "undecided": "undecided", None: "not defined"}
"""What a decision says of one step, unless it is reversed."""


def scan(
    series: str,
    number: Callable[[str, float], Estimand],
    deciding: Sequence[float],
    others: Iterable[float],
    axis: str = "length",
    unit: str = "",
) -> list[Estimand]:
    """The same number at several steps of a grid.

    Args:
        series: what the number is, without the step.
        number: makes the estimand at a step, from its label and the step.
        deciding: the steps that decide the verdict: the paper's.
        others: further steps, which qualify it; those that also decide are not repeated.
        axis: what a step is.
        unit: of a step.
    """
    steps = sorted({*deciding, *others})
    places = [Place(series, axis, step, unit, step in deciding) for step in steps]
    return [number(f"{series} at {axis} {one.at:g}{unit}", one.at)._replace(place=one) for one in places]


def qualification(estimates: Iterable[Estimate]) -> str:
    """Where each series holds and where it does not, a sentence for each; empty where all of it is as claimed.

    Series with the same outcome at every step share a sentence, with the farthest number among them. If that is all of
    them, they need no names.
    """
    said: dict[tuple[tuple[float, str], ...], list[str]] = {}
    found = _by_series(estimates)
    for series, steps in found.items():
        if any(_outcome(one) != AS_CLAIMED for one in steps):
            said.setdefault(tuple((_place(one).at, _outcome(one)) for one in steps), []).append(series)
    where = [_where(found[alike[0]], [one for series in alike for one in found[series]]) for alike in said.values()]
    if [list(found)] == list(said.values()):
        return f"{where[0][0].upper()}{where[0][1:]}."
    return " ".join(f"{_names(alike)}: {text}." for alike, text in zip(said.values(), where, strict=True))


def _names(series: Sequence[str]) -> str:
    """`a, b and c`; of many, the first and how many others."""
    if len(series) > MOST_NAMED:
        return f"{series[0]} and {len(series) - 1} others"
    return " and ".join([", ".join(series[:-1]), series[-1]] if len(series) > 1 else series)


def _by_series(estimates: Iterable[Estimate]) -> dict[str, list[Estimate]]:
    found: dict[str, list[Estimate]] = {}
    for one in estimates:
        if one.place:
            found.setdefault(one.place.series, []).append(one)
    return found


def _outcome(one: Estimate) -> str:
    outcome = OUTCOMES[one.decision]
    return REVERSED if outcome == OUTCOMES["outside"] and one.is_reversed else outcome


def _where(steps: Sequence[Estimate], alike: Sequence[Estimate]) -> str:
    """`as claimed at lengths 21 to 101, reversed at 1 to 11 (0.668× [0.6, 0.74] at 1)`.

    The number is the farthest from the claim of all series that are alike.
    """
    axis = _place(steps[0]).axis
    runs: dict[str, list[str]] = {}
    for outcome, run in groupby(steps, _outcome):
        runs.setdefault(outcome, []).append(_run(list(run)))
    order = sorted(runs, key=lambda outcome: outcome != AS_CLAIMED)
    return ", ".join(
        f"{outcome} at {axis}{'s' * _several(runs[outcome])} {', '.join(runs[outcome])}{_worst(alike, outcome)}"
        for outcome in order
    )


def _several(runs: Sequence[str]) -> bool:
    return len(runs) > 1 or " to " in runs[0]


def _run(steps: Sequence[Estimate]) -> str:
    first, last = (_at(steps[which]) for which in (0, -1))
    return first if len(steps) == 1 else f"{first} to {last}"


def _worst(steps: Sequence[Estimate], outcome: str) -> str:
    """The number at the step that is farthest from the claim, if it is known to be elsewhere."""
    if outcome not in (REVERSED, OUTCOMES["outside"]):
        return ""
    worst = min((one for one in steps if _outcome(one) == outcome), key=lambda one: one.distance)
    return f" ({worst} at {_at(worst)})"


def _at(one: Estimate) -> str:
    place = _place(one)
    return f"{place.at:g}{place.unit}"


def _place(one: Estimate) -> Place:
    assert one.place is not None
    return one.place
