"""The configuration of a comparison: vectors of the user's, both signs, and random vectors of each baseline.

A random vector is drawn once and used at every token, as the user's vector is: if it were drawn for each token anew,
its mean over tokens would be that of many vectors, and one vector could not be compared with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from tiltmeter.analysis.standing import FEATURE, MINUS, PERMUTATION, draws_needed, stem
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.held import OF_STATISTICS, draws_of, features, permutations
from tiltmeter.perturb.names import ALONG, DirectionName
from tiltmeter.perturb.own_directions import OwnDirection, checked_label, of_vector, read_vector
from tiltmeter.perturb.user_vectors import load_vectors
from tiltmeter.runs.config import Configuration
from tiltmeter.saes.at_site import RowsAtSite
from tiltmeter.sweeps.plan import Sweep

BASELINES = (*OF_STATISTICS, PERMUTATION)
"""The baselines of a comparison without an SAE. With one, random rows of its decoder (`sae-feature`) are another."""

LENGTHS = (0.125, 0.25, 0.5, 1.0)
"""In pair distances."""

BUDGETS = (0.01, 0.1, 1.0)
"""KL, nats."""

FEWEST_DRAWS = 99

DECIDED = ("site", "directions", "saes", "base", "path", "readouts", "until_ci", "keep_positions")
"""Fields of a sweep that a comparison decides itself."""

Budget = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Comparison(Configuration):
    """The configuration of a comparison. `tiltmeter.compare` makes it."""

    sweep: Sweep
    """Its directions are all vectors, with both signs, and all draws; its path is in pair distances."""
    vectors: tuple[str, ...]
    """Labels of the vectors, without their opposites."""
    baselines: tuple[str, ...]
    budgets: tuple[Budget, ...]


def refuse_settings(given: Collection[str]) -> None:
    """Refuse settings of a sweep that a comparison does not have.

    Raises:
        TiltmeterError: there is one.
    """
    possible = [name for name in Sweep.model_fields if name not in DECIDED]
    if wrong := [name for name in given if name not in possible]:
        raise TiltmeterError(f"A comparison has no setting {wrong[0]!r}; choose from {', '.join(possible)}.")


def read_vectors(given: Any, site: str) -> dict[str, Tensor]:
    """The vectors to compare, by their labels; a file with one vector may stand for it.

    Raises:
        TiltmeterError: there are none; one is no vector [d_site]; a file holds several, and none of them is named.
    """
    if not isinstance(given, Mapping) or not given:
        what = "none" if isinstance(given, Mapping) else f"of type {type(given).__name__}"
        raise TiltmeterError(f"The vectors to compare were {what}; give them with labels, as {{'refusal': vector}}.")
    found = {}
    for label, one in given.items():
        vector = _of_file(label, one, site) if isinstance(one, (str, Path)) else read_vector(label, one)
        if vector.ndim != 1:
            raise TiltmeterError(
                f"{label} has shape {tuple(vector.shape)}; a comparison is of vectors [d_site], each with a label."
            )
        found[checked_label(label, one)] = vector
    if marked := [label for label in found if "#" in label]:
        raise TiltmeterError(f"The label {marked[0]!r} has a #, which numbers random draws here; choose another.")
    if twice := [label for label in found if MINUS + label in found]:
        raise TiltmeterError(f"{MINUS + twice[0]} is tested as the opposite of {twice[0]}; choose another label.")
    return found


def _of_file(label: str, file: str | Path, site: str) -> Tensor:
    vectors = load_vectors(DirectionName(ALONG, str(file).removeprefix(f"{ALONG}:")), site)
    if len(vectors) > 1:
        first = next(iter(vectors)).argument
        raise TiltmeterError(f"{file} has {len(vectors)} vectors, and one is compared as {label!r}; name it: {first}.")
    return next(iter(vectors.values()))


def number_of_draws(given: int | None, vectors: int) -> int:
    """As many as were asked for, else as many as it takes to decide, at least 99.

    Raises:
        TiltmeterError: a number was given that is not positive.
    """
    if given is not None and not (isinstance(given, Integral) and given >= 1):
        raise TiltmeterError(f"draws was {given!r}; give a whole number of at least 1, better {FEWEST_DRAWS}.")
    return given or max(FEWEST_DRAWS, draws_needed(2 * vectors))


def choose_baselines(given: Sequence[str] | None, has_sae: bool) -> tuple[str, ...]:
    """All baselines that there are, or those that were asked for.

    Raises:
        TiltmeterError: one does not exist, or there is none.
    """
    possible = (*BASELINES, FEATURE) if has_sae else BASELINES
    given = (given,) if isinstance(given, str) else given
    chosen = tuple(dict.fromkeys(possible if given is None else given))
    if wrong := [name for name in chosen if name not in possible]:
        need = " (sae-feature needs an SAE: sae=...)" if wrong[0] == FEATURE else ""
        raise TiltmeterError(f"{wrong[0]!r} is not a baseline here; choose from {', '.join(possible)}{need}.")
    if not chosen:
        raise TiltmeterError("A comparison needs a baseline; leave baselines out for all of them.")
    return chosen


def all_directions(
    vectors: Mapping[str, Tensor], baselines: Sequence[str], count: int, sae: RowsAtSite | None, seed: int
) -> dict[str, OwnDirection]:
    """The vectors, their opposites, and `count` draws of each baseline (of each vector, for its permutations)."""
    signed = {label: vector for label, vector in vectors.items()} | {MINUS + label: -v for label, v in vectors.items()}
    found = {name: of_vector(vector) for name, vector in signed.items()}
    for baseline in baselines:
        for name, vector in signed.items():
            if (first := stem(baseline, name, tuple(vectors))) + "0" not in found:
                sign = 1 if name in vectors else -1
                draws = _draws(baseline, name if sign > 0 else name.removeprefix(MINUS), vector, sign, count, sae, seed)
                found |= {f"{first}{number}": draw for number, draw in enumerate(draws)}
    return found


def _draws(
    baseline: str, label: str, vector: Tensor, sign: int, count: int, sae: RowsAtSite | None, seed: int
) -> list[OwnDirection]:
    """Draws for a vector (sign 1) with this label, or for its opposite (-1), those of the latter being opposites."""
    if baseline == PERMUTATION:
        return [of_vector(one) for one in permutations(label, vector, count, seed)]
    if baseline == FEATURE:
        assert sae is not None
        return [of_vector(sign * row) for row in features(sae, count, seed)]
    return draws_of(baseline, count)
