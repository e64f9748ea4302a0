"""Why an SAE reconstructs badly where it is used, found by trying other ways to use it on some of the tokens.

Each trial (`trials`) corrects one known mistake: the other stream (centred or raw), value biases not folded, the other
convention for b_dec, another layer, a scale factor left out of the weights, a missing or surplus boundary token, a lost
k or threshold, decoder rows of another length. If the SAE explains much more of the variance in one of them, that
mistake is the likely cause.

Some mistakes leave an SAE plausible: one layer off, it may explain 60 % instead of 70 %. So the near trials are also
made where nothing is off, and there the difference must be beyond chance (`Fit.beats`) and larger than any of an SAE in
its right place (`margin`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.evaluation import SAEMetrics
from tiltmeter.saes.fits import Fit, fits
from tiltmeter.saes.sae import About
from tiltmeter.saes.trials import CauseKind, Trial, far_trials, near_trials

WORTH = 0.3
"""Least explained variance in the trial of a likely cause, which must also halve the unexplained variance."""

LEAST: Mapping[CauseKind, float] = {"stream": -0.5, "site": -0.5, "scale": 0.5, "top-k": 0.5}
"""The same of some kinds. In its right place, an end-to-end SAE may explain less than nothing; but other factors and
fewer latents make any bad SAE less bad."""

GENERIC: tuple[CauseKind, ...] = ("scale", "top-k")
"""Kinds of trial that help against several mistakes; another kind is named if it helps nearly as much."""

NEAR = 0.05
"""Explained variances of one SAE on two texts may differ by this much."""

ALIKE = 1.25
"""L0s of one SAE on two texts may differ by this factor."""

CLOSE = 0.02
"""Explained variances that differ by no more do not decide between kinds of cause; the more common kind is named."""

MARGIN = 1.4
"""An SAE in its right place may leave this many times as much unexplained as in another, and no more. Of the right uses
in `scripts/sae_traps.py`, the most is 1.34: an SAE with an L0 of 4 that explains more one layer later."""

NARROW: Mapping[CauseKind, float] = {"site": 1.15, "scale": 1.15, "stream": 1.15, "top-k": 1.1, "rows": 1.1}
"""The same where the SAE would explain at least `WELL` of the variance. The most of right uses is 1.01 there, but 1.24
for b_dec's convention."""

WELL = 0.6
"""Explained variance of an SAE that reconstructs well."""

LEVEL = 0.01
"""Chance of a difference that is none, over all trials of an SAE, were stretches independent. On nano they are not
quite: where no trial is better on average, the errors of the test alone add up to 0.05 to 0.07 over all trials, and to
less than 0.001 with the margin."""

LONG = 0.8
"""Activations are regressed on reconstructions; a slope below this is off. Of right uses in `scripts/sae_traps.py`, the
least is 0.92: an L1 norm makes reconstructions too short, and little makes them too long."""


class Explanation(NamedTuple):
    """A possible cause, with the explained variance once it is corrected. Sorts by the latter."""

    explained_variance: float
    kind: CauseKind
    cause: str


class Diagnosis(NamedTuple):
    """What the near trials found."""

    used: Fit
    """The SAE as it is used."""
    surer: tuple[Explanation, ...]
    """Trials that are better beyond chance, and by more than the margin."""
    other: tuple[Explanation, ...]
    """Trials that are better as far as can be said of an SAE that is known to be off."""

    @property
    def sentence(self) -> str | None:
        """The likely cause; None if no trial is better beyond doubt."""
        return _sentence(self.used, self.surer) if self.surer else None


def diagnose(
    model: SplitModel, at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, norm: float
) -> Diagnosis:
    """Try an SAE in other ways near to how it is used, whether or not anything is off.

    Args:
        model: the model, set to the stream (centred or raw) in which activations are measured.
        at: the SAE as it is used.
        ids: the sequences on which trials are run.
        boundary: id of the token that begins a document.
        norm: mean norm of the activations.
    """
    trials = near_trials(model, at, norm)
    used, *tried = fits(model, [at, *(trial.at for trial in trials)], ids, boundary)
    pairs = [*zip(trials, tried, strict=True)]
    level = LEVEL / max(1, len(trials))
    surer = [pair for pair in pairs if _is_surely_better(*pair, used, level)]
    other = [pair for pair in pairs if _accounts_for(*pair, used, at.sae.about)]
    return Diagnosis(used, _explanations(surer), _explanations(other))


def _is_surely_better(trial: Trial, fit: Fit, used: Fit, level: float) -> bool:
    least = max(LEAST.get(trial.kind, WORTH), used.explained_variance + CLOSE)
    return fit.explained_variance >= least and fit.beats(used, margin(trial.kind, fit), level)


def margin(kind: CauseKind, fit: Fit) -> float:
    """How many times as much an SAE must leave unexplained before this trial of it means anything."""
    return NARROW.get(kind, MARGIN) if fit.explained_variance >= WELL or kind == "rows" else MARGIN


def likely_cause(
    model: SplitModel,
    at: SAEAtSite,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    metrics: SAEMetrics,
    near: Diagnosis,
) -> str:
    """Name the likely cause of what is off, in a sentence: the trial in which the SAE explains much more than as used.

    Args:
        model: the model, set to the stream (centred or raw) in which activations are measured.
        at: the SAE as it is used.
        ids: the sequences on which trials are run.
        boundary: id of the token that begins a document.
        metrics: metrics of the SAE as it is used.
        near: what the near trials found. The far ones are made here.
    """
    trials = far_trials(model, at, metrics.l0)
    tried = fits(model, [trial.at for trial in trials], ids, boundary)
    far = [pair for pair in zip(trials, tried, strict=True) if _accounts_for(*pair, near.used, at.sae.about)]
    found = [*near.surer, *near.other, *_explanations(far), *_first_tokens(model, at, ids, boundary, near.used)]
    if not found:
        hint = _first_token_hint(at, ids, boundary)
        return (
            "No likely cause was found: no other stream, site, scale or first token helps"
            f"{hint}. Is it an SAE of this model?"
        )
    return _sentence(near.used, found)


def _explanations(pairs: Sequence[tuple[Trial, Fit]]) -> tuple[Explanation, ...]:
    return tuple(Explanation(fit.explained_variance, trial.kind, trial.cause) for trial, fit in pairs)


def _sentence(used: Fit, found: Sequence[Explanation]) -> str:
    best = _likeliest(found)
    return (
        f"Likely cause: {best.cause}. It would then explain {best.explained_variance:.3f} of the variance instead of "
        f"{used.explained_variance:.3f}."
    )


def _likeliest(found: Sequence[Explanation]) -> Explanation:
    """The best explanation of the most common kind among those close to the best of all.

    A generic one counts only if it halves what the best of the others leaves unexplained.
    """
    special = [one for one in found if one.kind not in GENERIC]
    if special and 1 - max(found).explained_variance > (1 - max(special).explained_variance) / 2:
        found = special
    least = max(found).explained_variance - CLOSE
    close = [one for one in found if one.explained_variance >= least]
    kind = min((one.kind for one in close), key=get_args(CauseKind).index)
    return max(one for one in close if one.kind == kind)


def _accounts_for(trial: Trial, fit: Fit, used: Fit, about: About) -> bool:
    """Whether an SAE that is off would be as its files state, or much better. Its reconstructions are not too long."""
    if trial.by_l0:  # it need not explain more
        return _is_as_stated(fit, about) and fit.explained_variance >= used.explained_variance - NEAR
    if fit.slope < LONG:
        return False
    gained = fit.explained_variance >= used.explained_variance + 2 * NEAR
    stated = about.explained_variance is not None and _is_as_stated(fit, about)
    return _is_much_better(trial, fit, used) or (stated and (gained or not _is_as_stated(used, about)))


def _is_as_stated(fit: Fit, about: About) -> bool:
    """Whether L0 and explained variance are those that the SAE's files state; what they do not state is not asked.

    This catches an SAE one layer off, where the unexplained variance may be less than twice as large, and an end-to-end
    one, which may explain more in a wrong place.
    """
    l0, explained = about.l0, about.explained_variance
    same_l0 = not l0 or 1 / ALIKE <= fit.l0 / l0 <= ALIKE
    return same_l0 and (explained is None or abs(fit.explained_variance - explained) <= NEAR)


def _is_much_better(trial: Trial, fit: Fit, used: Fit) -> bool:
    unexplained = 1 - (used.explained_variance if math.isfinite(used.explained_variance) else -math.inf)
    least = max(WORTH, LEAST.get(trial.kind, WORTH))
    return fit.explained_variance >= least and 1 - fit.explained_variance <= unexplained / 2


def _first_tokens(
    model: SplitModel, at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, used: Fit
) -> list[Explanation]:
    """The sequences with the boundary token prepended if they lack it, and without it if they begin with it."""
    if boundary is None or ids.shape[1] < 3:
        return []
    if _begin_with(ids, boundary):
        other, cause = ids[:, 1:], "it expects sequences that do not begin with the boundary token, and these do"
    else:
        other = torch.cat([torch.full_like(ids[:, :1], boundary), ids[:, :-1]], 1)
        cause = "it expects sequences that begin with the boundary token, and these do not"
    [fit] = fits(model, [at], other, boundary)
    trial = Trial("first token", at, cause)
    return [*_explanations([(trial, fit)])] if _is_much_better(trial, fit, used) else []


def _first_token_hint(at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None) -> str:
    """A clause, if the SAE's files state another first token than these sequences have (changing it did not help)."""
    wanted = at.sae.about.prepend_bos
    if wanted is None or boundary is None or wanted == _begin_with(ids, boundary):
        return ""
    return f", though its files say that it was trained {'with' if wanted else 'without'} a boundary token prepended"


def _begin_with(ids: Int[Tensor, "sequence position"], boundary: int) -> bool:
    return bool((ids[:, 0] == boundary).all())
