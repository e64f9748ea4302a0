"""What figures call an SAE: `local SAE, L0 12` in the place of its name, `local-3-l0-12`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiltmeter.studies.results import Results, saes_of

Facts = Mapping[str, Any]


def sae_labels(results: Results, experiments: Sequence[str]) -> dict[str, str]:
    """The label of each SAE of these experiments, by its name: its kind, and its L0, rounded.

    Where several would have the same label, it has what tells them apart, too: the layer, the number of latents, or if
    these do not, the name. An SAE has the same L0 in all figures: that of the experiment that counted on most tokens.

    Args:
        results: of the study.
        experiments: their names, as in `PaperFigure.needs`.
    """
    known = sae_facts(results)
    used = results.of_experiments(experiments).values()
    names = dict.fromkeys(name for curves in used if "saes" in curves.attrs for name in saes_of(curves))
    alike: dict[str, list[Facts]] = {}
    for name in names:
        alike.setdefault(_label(known[name]), []).append(known[name])
    found = {
        str(one["name"]): f"{label}{more}"
        for label, members in alike.items()
        for one, more in zip(members, _apart(members), strict=True)
    }
    return {name: found[name] for name in names}


def l0_text(facts: Facts) -> str:
    """`L0 12`; empty where it is not known."""
    l0 = facts["l0"]
    if math.isnan(l0):
        return ""
    return f"L0 {l0:.0f}" if l0 >= 1 else f"L0 {l0:.2g}"


def sae_facts(results: Results) -> dict[str, Facts]:
    """What is known of each SAE (`saes_of`, and `name` and `site`), from the dataset whose L0 is of most tokens."""
    return results.once("facts of SAEs", lambda: _facts(results))


def _facts(results: Results) -> dict[str, Facts]:
    found: dict[str, Facts] = {}
    for curves in results.values():
        for name, known in saes_of(curves).items() if "saes" in curves.attrs else ():
            if name not in found or known.get("tokens", 0) > found[name].get("tokens", 0):
                found[name] = known | {"name": name, "site": str(curves.attrs.get("site", ""))}
    return found


def renaming(labels: Mapping[str, str]) -> Callable[[str], str]:
    """A function that writes labels in the place of names: of a whole text, and `KIND (LABEL)` for `KIND:NAME`.

    Elsewhere in a text a name may be a word.
    """
    if not labels:
        return lambda text: text
    names = "|".join(re.escape(name) for name in sorted(labels, key=len, reverse=True))
    # another SAE's name may begin with this one; a full stop may end the sentence
    pattern = re.compile(rf"(?<=[a-z]):({names})(?![\w+-]|\.\w)")
    return lambda text: labels.get(text) or pattern.sub(lambda found: f" ({labels[found[1]]})", text)


def _label(facts: Facts) -> str:
    return ", ".join(filter(None, [f"{facts['kind']} SAE", l0_text(facts)]))


def _apart(members: list[Facts]) -> list[str]:
    """What to add to the label of each of several SAEs that would have the same one."""
    if len(members) == 1:
        return [""]
    for more in (_layer, _latents):
        found = [more(one) for one in members]
        if len(set(found)) == len(members):
            return found
    return [f", {one['name']}" for one in members]


def _layer(facts: Facts) -> str:
    found = re.search(r"\.(\d+)\.", facts["site"])
    return f", layer {found[1]}" if found else ""


def _latents(facts: Facts) -> str:
    return f", {facts['latents']} latents" if facts.get("latents") else ""
