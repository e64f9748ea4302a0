"""What figures call an SAE: `local SAE, L0 12` in the place of its name, `local-3-l0-12`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import xarray as xr

from tiltmeter.studies.results import saes_of

Facts = Mapping[str, Any]


def sae_labels(used: Iterable[xr.Dataset]) -> dict[str, str]:
    """The label of each SAE of these datasets, by its name: its kind, and its mean number of active latents, rounded.

    Where several would have the same label, it has what tells them apart, too: the layer, the number of latents, or if
    these do not, the name.

    Args:
        used: datasets of a study, with SAEs or without. Of an SAE in several, the facts of the first count.
    """
    facts: dict[str, Facts] = {}
    for curves in used:
        for name, known in saes_of(curves).items() if "saes" in curves.attrs else ():
            facts.setdefault(name, known | {"name": name, "site": curves.attrs.get("site", "")})
    alike: dict[str, list[Facts]] = {}
    for one in facts.values():
        alike.setdefault(_label(one), []).append(one)
    found = {
        str(one["name"]): f"{label}{more}"
        for label, members in alike.items()
        for one, more in zip(members, _apart(members), strict=True)
    }
    return {name: found[name] for name in facts}


def renaming(labels: Mapping[str, str]) -> Callable[[str], str]:
    """A function that writes labels in the place of names: of a whole text, and where it has `KIND:NAME`.

    Elsewhere in a text a name may be a word.
    """
    if not labels:
        return lambda text: text
    names = "|".join(re.escape(name) for name in sorted(labels, key=len, reverse=True))
    # another SAE's name may begin with this one; a full stop may end the sentence
    pattern = re.compile(rf"(?<=[a-z]:)({names})(?![\w+-]|\.\w)")
    return lambda text: labels.get(text) or pattern.sub(lambda found: f" {labels[found[1]]}", text)


def _label(facts: Facts) -> str:
    l0 = facts["l0"]
    if l0 is None or l0 != l0:
        return f"{facts['kind']} SAE"
    return f"{facts['kind']} SAE, L0 {l0:.0f}" if l0 >= 1 else f"{facts['kind']} SAE, L0 {l0:.2g}"


def _apart(members: list[Facts]) -> list[str]:
    """What to add to the label of each of several SAEs that would have the same one."""
    if len(members) == 1:
        return [""]
    for more in (_layer, _latents):
        found = [more(one) for one in members]
        if len(set(found)) == len(members):
            return found
    return [f" ({one['name']})" for one in members]


def _layer(facts: Facts) -> str:
    found = re.search(r"\.(\d+)\.", facts["site"])
    return f", layer {found[1]}" if found else ""


def _latents(facts: Facts) -> str:
    return f", {facts['latents']} latents" if facts.get("latents") else ""
