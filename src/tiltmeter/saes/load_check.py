"""The load check: whether an SAE performs where it is used as its files state, and if it does not, the likely cause.

An SAE used on the wrong stream, layer or scale raises no error: it reconstructs badly, and directions taken from it are
meaningless. So its metrics are measured on a few thousand tokens and compared with the published ones and with
plausible ranges. Causes are tried only where a metric is off, since they cost forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tiltmeter.analysis.massive import ordinary
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import InOrOut
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import CHUNK_ELEMENTS, SAEAtSite
from tiltmeter.saes.compatibility import check_compatible, stream_disagreement
from tiltmeter.saes.diagnosis import likely_cause, other_convention
from tiltmeter.saes.evaluation import SAEMetrics, evaluate, massive_limit, not_boundary, through
from tiltmeter.saes.sae import END_TO_END_KINDS

__all__ = ["LoadCheck", "check_compatible", "check_on_load"]

FAR = 2.0
"""An L0 is off where it differs from the published one by more than this factor, in either direction."""

SHORT, MORE = 0.05, 1.4
"""An explained variance is off where it is more than `SHORT` below the published one and the unexplained variance is
more than `MORE` times as large. Both must hold, since publishers evaluate on other texts and average differently."""

HARM = 0.01
"""Nats below which an effect on the output is ignored: the KL due to first positions, a difference of losses."""

TRIED = 1024
"""Approximate number of tokens on which causes are tried."""


@dataclass(frozen=True)
class LoadCheck:
    """Metrics of an SAE where it is used, and warnings where they are off."""

    metrics: SAEMetrics
    mean_loss: float
    """Cross-entropy with every activation of the site replaced by their mean, nats per token."""
    published_l0: float | None
    published_explained_variance: float | None
    warnings: tuple[str, ...]
    """Sentences: what is off, and the likely cause. Empty if nothing is off."""

    def to_json(self) -> dict[str, Any]:
        """The entry in the manifest. Numbers that are not finite become None, since JSON has none."""
        numbers = {key: value for key, value in vars(self).items() if key not in ("metrics", "warnings")}
        return {
            "metrics": _finite(asdict(self.metrics)),
            **_finite(numbers),
            "warnings": list(self.warnings),
        }


def check_on_load(model: SplitModel, at: SAEAtSite, tokens: TokenSet, budget: int = 4096) -> LoadCheck:
    """Measure an SAE where it is used, and warn of what is off, with the likely cause.

    Args:
        model: the model, set to the stream (centred or raw) in which activations are measured.
        at: the SAE at its site.
        tokens: token sequences, of which the first are used.
        budget: how many tokens to use; at least one sequence is used.

    Raises:
        TiltmeterError: the SAE's width is not the site's, or its output is not finite; or the sequences have only
            boundary positions.
    """
    ids = _first(tokens.ids, budget)
    at.check_width(model.activation(ids[:1, :1], at.site).shape[-1])
    above = massive_limit(model, ids, tokens.boundary, at.site)
    metrics = _evaluate(model, at, ids, tokens.boundary, above)
    if not math.isfinite(metrics.distance):
        raise TiltmeterError(
            f"The SAE {at.name} returns non-finite reconstructions of activations at {at.site.name}: its weights are "
            "too large for them; give an SAE of this model and site."
        )
    mean_loss = _mean_loss(model, at, ids, tokens.boundary, above)
    warnings = list(_metric_warnings(at, metrics, mean_loss))
    if warnings:
        warnings.append(likely_cause(model, at, _first(ids, TRIED), tokens.boundary, metrics))
    elif at.sae.about.explained_variance is None:  # nothing to compare it with, and the weights do not say
        warnings += other_convention(model, at, _first(ids, TRIED), tokens.boundary)
    warnings += _first_position_warnings(model, at, ids, tokens.boundary, above, metrics)
    warnings += _processing_warnings(model, at)
    about = at.sae.about
    return LoadCheck(metrics, mean_loss, about.l0, about.explained_variance, tuple(warnings))


def _metric_warnings(at: SAEAtSite, metrics: SAEMetrics, mean_loss: float) -> Iterator[str]:
    """Warn of metrics far from the published ones, or outside plausible ranges."""
    about, l0, explained = at.sae.about, metrics.l0, metrics.explained_variance
    sae = f"{at.name} at {at.site.name}"
    if l0 == 0:
        yield f"No latent of {sae} fires."
    elif about.l0 and not 1 / FAR <= l0 / about.l0 <= FAR:
        yield f"The L0 of {sae} is {l0:.4g}, but its files state {about.l0:.4g}."
    elif l0 > at.size / 2:
        yield f"The L0 of {sae} is {l0:.4g}: more than half of its {at.size} latents fire on an average token."
    published = about.explained_variance
    if published is not None and _is_short(explained, published):
        yield f"{sae} explains {explained:.3f} of the variance, but its files state {published:.3f}."
    elif published is None and not explained >= 0 and about.kind not in END_TO_END_KINDS:
        yield f"{sae} explains {explained:.3f} of the variance, less than the mean activation does."
    if metrics.loss > mean_loss + HARM > metrics.clean_loss + 2 * HARM:
        yield (
            f"With {sae} spliced in, the loss is {metrics.loss:.3f} nats, worse than with every activation replaced by "
            f"the mean ({mean_loss:.3f}); the clean loss is {metrics.clean_loss:.3f}."
        )


def _is_short(explained: float, published: float) -> bool:
    return not (explained >= published - SHORT or 1 - explained <= MORE * (1 - published))


def _processing_warnings(model: SplitModel, at: SAEAtSite) -> Iterator[str]:
    """Warn where the SAE's files state another processing of the model than the one in use."""
    if disagreement := stream_disagreement(at.sae, model, at.site):
        yield disagreement
    if at.site.kind == "z" and at.sae.about.processing == "folded":
        yield (
            f"The SAE {at.name} expects z without the contribution of the value biases; wrap it with "
            "tiltmeter.saes.affine.unfold_value_biases."
        )


@torch.no_grad()
def _first_position_warnings(
    model: SplitModel,
    at: SAEAtSite,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    above: float,
    metrics: SAEMetrics,
) -> Iterator[str]:
    """Warn where first positions have a far larger error than others, or are massive, and cause most of the KL.

    Activations at first positions have norms far above all others, and many SAEs are not trained on them.
    """
    x = model.activation(ids[:, :1], at.site)
    if not metrics.norm > 0 or not x.norm(dim=-1).all():  # a relative error needs a norm
        return
    first = float(((at.reconstruct(x) - x).norm(dim=-1) / x.norm(dim=-1)).mean())
    elsewhere = metrics.distance / metrics.norm
    if not (first > max(0.5, 3 * elsewhere) or not ordinary(x, above).all()):
        return
    without = _evaluate(model, at, ids, boundary, above, "out")
    if metrics.kl > HARM and without.kl < metrics.kl / 2:
        yield (
            f"The relative error of {at.name} is {first:.3g} at first positions and {elsewhere:.3g} elsewhere; the KL "
            f"is {metrics.kl:.3g}, but {without.kl:.3g} if boundary positions keep their activations: exclude them "
            "from the perturbation (--bos-perturbation out)."
        )


def _evaluate(
    model: SplitModel,
    at: SAEAtSite,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    above: float,
    spliced: InOrOut = "in",
) -> SAEMetrics:
    batch = min(8, max(1, CHUNK_ELEMENTS // (at.size * ids.shape[1])))
    return evaluate(model, through(at.sae), ids, boundary, at.site, spliced, batch, above)


@torch.no_grad()
def _mean_loss(
    model: SplitModel, at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, above: float
) -> float:
    """The loss with every activation replaced by the mean of those that are neither massive nor at the boundary."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for rows, wanted in zip(ids.split(8), not_boundary(ids, boundary).split(8), strict=True):
        x = model.activation(rows, at.site)
        taken = x[(wanted & ordinary(x, above)).to(x.device)]
        total, count = taken.double().sum(0) + total.to(x.device), count + len(taken)
    mean = total / count
    return evaluate(
        model, lambda x: (x.new_zeros(x.shape), mean.to(x).expand_as(x)), ids, boundary, at.site, massive_above=above
    ).loss


def _first(ids: Int[Tensor, "sequence position"], tokens: int) -> Int[Tensor, "first position"]:
    """The first sequences, of about this many tokens in total."""
    return ids[: max(1, tokens // ids.shape[1])]


def _finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if value is None or math.isfinite(value) else None for key, value in numbers.items()}
