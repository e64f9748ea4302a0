"""The tokens with the largest mean KL gap, and how much the gap varies from one occurrence to another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tiltmeter.analysis.estimates import Estimand
from tiltmeter.analysis.resampling import Rows
from tiltmeter.studies.estimands import PerToken
from tiltmeter.studies.gurnee2024.gap import gap
from tiltmeter.studies.gurnee2024.per_token import fact, layer_of, study_layer
from tiltmeter.studies.margins import MORE
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.token_facts import strings_of

FEWEST_OCCURRENCES, TOP = 5, 20
"""The fewest occurrences of a token that is considered, and the number of tokens shown."""


class Worst(NamedTuple):
    """The tokens with the largest mean gap, the largest first."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    occurrences: Float[np.ndarray, " token"]
    mean: Float[np.ndarray, " token"]
    spread: Float[np.ndarray, " token"]
    """Standard deviation over the token's occurrences."""


def worst(results: Results) -> Worst:
    """The tokens with the largest mean gap at the study's layer, of those that occur often enough.

    Raises:
        NotMeasured: none does.
    """
    one = layer_of(results, study_layer(results))
    values, ids = gap(one.curves), fact(one.facts, "token").astype(int)
    known = ~np.isnan(values)
    token, member = np.unique(ids[known], return_inverse=True)
    count = np.bincount(member).astype(np.float64)
    mean = np.bincount(member, values[known]) / count
    spread = np.sqrt(np.bincount(member, (values[known] - mean[member]) ** 2) / np.maximum(count - 1, 1))
    often = np.flatnonzero(count >= FEWEST_OCCURRENCES)
    if not len(often):
        raise NotMeasured(f"No token occurs {FEWEST_OCCURRENCES} times; measure more sequences.")
    top = often[np.argsort(-mean[often], kind="stable")][:TOP]
    text = strings_of(one.facts)
    names = tuple(f"{text[int(token[at])]!r} ({int(count[at])})" for at in top)
    return Worst(names, tuple(int(token[at]) for at in top), count[top], mean[top], spread[top])


def varies_within_tokens(results: Results) -> list[Estimand]:
    """Variance of the gap over occurrences of a token ÷ variance of the means of the tokens with the largest gaps.

    The tokens are chosen once, from all sequences.
    """
    layer, ids = study_layer(results), worst(results).ids
    if len(ids) < 2:
        raise NotMeasured("Only one token occurs often enough; measure more sequences.")
    one = layer_of(results, layer)
    label = f"layer {layer}: variance of the gap within a token ÷ between the {len(ids)} tokens with the largest gaps"
    sums = _sums(gap(one.curves), fact(one.facts, "token"), ids)
    return [Estimand(label, sums, _within_over_between, MORE, "×", "ratio")]


def _sums(values: PerToken, tokens: PerToken, ids: tuple[int, ...]) -> Float[np.ndarray, "sequence token 3"]:
    """How often each token occurs in each sequence, with the sums of its values and of their squares."""
    known = ~np.isnan(values)
    counted = [known & (tokens == token) for token in ids]
    powers = (np.ones_like(values), np.where(known, values, 0.0), np.where(known, values, 0.0) ** 2)
    return np.stack([[(power * here).sum(1) for power in powers] for here in counted]).transpose(2, 0, 1)


def _within_over_between(rows: Rows) -> float:
    """Mean over tokens of the variance of their values ÷ variance of their means, without tokens that occur once."""
    sums = rows.sum(axis=0)
    count, total, squares = sums[sums[:, 0] > 1].T
    if len(count) < 2:
        return float("nan")
    means = total / count
    within = (squares - count * means**2) / (count - 1)
    return float(within.mean() / means.var(ddof=1))
