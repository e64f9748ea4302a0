"""The results of a study: datasets by the names of its experiments, and why some are not there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd
import xarray as xr

from tiltmeter.analysis.clusters import Documents
from tiltmeter.analysis.curves import documents_of, summary
from tiltmeter.analysis.estimates import Estimand
from tiltmeter.saes.sae import LOCAL_KINDS

Value = TypeVar("Value")


class NotMeasured(Exception):  # noqa: N818 - a normal outcome, not an error
    """Something was not measured, and the reason why, in a sentence.

    A study returns it in place of an experiment that cannot be run on a subject. `Results` raises it where a figure or
    a claim asks for what is not there.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        """Two are equal if their reasons are."""
        return isinstance(other, NotMeasured) and self.reason == other.reason

    def __hash__(self) -> int:
        """Of the reason."""
        return hash(self.reason)


class Results(Mapping[str, xr.Dataset]):
    """Datasets by experiment. Asking for one that is not there raises `NotMeasured`, with the reason."""

    def __init__(self, found: Mapping[str, xr.Dataset], missing: Mapping[str, str]) -> None:
        self.found, self.missing = dict(found), dict(missing)
        self._computed: dict[str, Any] = {}

    def __getitem__(self, name: str) -> xr.Dataset:
        """The dataset of an experiment.

        Raises:
            NotMeasured: there is none.
        """
        if name in self.found:
            return self.found[name]
        raise NotMeasured(self.missing.get(name, f"The experiment {name} was not run."))

    def __iter__(self) -> Iterator[str]:
        """Names of what was measured."""
        return iter(self.found)

    def __len__(self) -> int:
        """How many experiments were measured."""
        return len(self.found)

    def table(self, name: str) -> pd.DataFrame:
        """Means with intervals of a sweep (`tiltmeter.analysis.curves.summary`), taken once.

        Raises:
            NotMeasured: there is none.
        """
        return self.once(f"table {name}", lambda: summary(self[name]))

    def once(self, key: str, compute: Callable[[], Value]) -> Value:
        """A value derived from the datasets, computed where it is first asked for under this key.

        Claims and figures ask for the same statistics of the same curves hundreds of times.
        """
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def with_documents(self, quantity: Estimand) -> Estimand:
        """The number, with the document that each of its rows is from: row n is of the n-th sequence of the tokens.

        The experiments of a study measure the first sequences of the same tokens.
        """
        if quantity.documents is not None:
            return quantity
        return quantity._replace(documents=self.documents(len(quantity.rows)))

    def documents(self, sequences: int) -> Documents | None:
        """Which document each of the first sequences is from; None where no experiment measured as many."""
        longest = self.once("documents", self._longest)
        return None if longest is None or len(longest) < sequences else longest[:sequences]

    def _longest(self) -> Documents | None:
        known = [found for curves in self.found.values() if (found := documents_of(curves)) is not None]
        return max(known, key=len, default=None)

    def of_experiments(self, names: Sequence[str]) -> dict[str, xr.Dataset]:
        """What was measured of these experiments: NAME, and NAME-0, NAME-1, ... of an experiment in several layers."""
        return {
            found: data
            for name in names
            for found, data in self.found.items()
            if found == name or re.fullmatch(rf"{re.escape(name)}-\d+", found)
        }

    def by_layer(self, experiment: str) -> dict[int, xr.Dataset]:
        """What was measured at each layer: the experiments `NAME-0`, `NAME-1`, ..., by layer.

        Raises:
            NotMeasured: at none.
        """
        pattern = re.compile(rf"{re.escape(experiment)}-(\d+)")
        layers = {int(match[1]): name for name in self.found if (match := pattern.fullmatch(name))}
        if layers:
            return {layer: self.found[layers[layer]] for layer in sorted(layers)}
        reasons = [reason for name, reason in self.missing.items() if name == experiment or pattern.fullmatch(name)]
        raise NotMeasured(reasons[0] if reasons else f"The experiment {experiment} was not run.")


def saes_of(curves: xr.Dataset) -> dict[str, dict[str, Any]]:
    """What is known of the SAEs of a sweep, by label, the sparsest first.

    `kind` (`local` for all that were trained to reconstruct), `family` (of one objective and size, as those of one
    release are), `l0`, `explained_variance` and `distance`.
    """
    facts = json.loads(curves.attrs["saes"])
    for one in facts.values():
        one["family"] = (one["kind"], one.get("latents"))
        one["kind"] = "local" if one["kind"] in LOCAL_KINDS else one["kind"]
    return dict(sorted(facts.items(), key=lambda item: item[1]["l0"]))


def saes_by_kind(curves: xr.Dataset) -> dict[str, list[str]]:
    """Labels of the SAEs of each kind, the sparsest first; local ones before the others."""
    kinds: dict[str, list[str]] = {}
    for label, facts in saes_of(curves).items():
        kinds.setdefault(facts["kind"], []).append(label)
    return {kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: (kind != "local", kind))}


def saes_by_family(curves: xr.Dataset, kinds: Sequence[str]) -> dict[str, list[str]]:
    """Labels of the SAEs of each family of these kinds, the sparsest first: `local, 24576 latents`.

    SAEs of different makers differ in more than their L0, so that an order by L0 is one within a family.
    """
    facts = saes_of(curves)
    found: dict[str, list[str]] = {}
    for kind in kinds:
        labels = saes_by_kind(curves).get(kind, [])
        several = len({facts[label]["family"] for label in labels}) > 1
        for label in labels:
            objective, latents = facts[label]["family"]
            name = f"{objective or 'unnamed objective'}, {latents} latents" if several else kind
            found.setdefault(name, []).append(label)
    return found
