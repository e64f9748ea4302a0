"""The load check: whether an SAE performs where it is used as its files state, and if it does not, the likely cause.

An SAE used on the wrong stream, layer or scale raises no error: it reconstructs badly, and directions taken from it are
meaningless. So its metrics are measured on a few thousand tokens and compared with the published ones and with
plausible ranges. Unless it explains as much as its files state, similar ways to use it are tried as well, since an SAE
one layer off may look plausible; other ways only where something is off, since they cost forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.analysis.massive import MASSIVE_RATIO, count_massive, norms_of, ordinary
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import CHUNK_ELEMENTS, SAEAtSite
from tiltmeter.saes.compatibility import check_compatible, stream_disagreement
from tiltmeter.saes.diagnosis import LONG, diagnose, likely_cause
from tiltmeter.saes.evaluation import SAEMetrics, Splice, evaluate_each, finite_or_none, not_boundary, through
from tiltmeter.saes.sae import END_TO_END_KINDS

__all__ = ["LoadCheck", "check_compatible", "check_on_load"]

FAR = 2.0
"""An L0 is off where it differs from the published one by more than this factor, in either direction."""

SHORT, MORE = 0.05, 1.4
"""An explained variance is off where it is more than `SHORT` below the published one and the unexplained variance is
more than `MORE` times as large. Both must hold, since publishers evaluate on other texts and average differently."""

HARM = 0.01
"""Nats below which an effect on the output is ignored: the KL due to first positions, a difference of losses."""

SAME = 0.02
"""An SAE that explains no less than its files state, up to this much, is used as it was meant to be."""

KEEPS = 0.5
"""An SAE that keeps this much of the loss that the mean everywhere costs may explain less than the mean does."""

FIRST = 0.5
"""A relative error at first positions that is looked into."""

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
            "metrics": finite_or_none(asdict(self.metrics)),
            **finite_or_none(numbers),
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
    ids, boundary = _first(tokens.ids, budget), tokens.boundary
    at.check_width(model.activation(ids[:1, :1], at.site).shape[-1])
    x = torch.cat([model.activation(rows, at.site) for rows in ids.split(8)])
    above = count_massive(norms_of(x), counted := not_boundary(ids, boundary), MASSIVE_RATIO).limit
    first = _first_error(at, x[:, :1])
    splices = [Splice(through(at.sae)), _mean_everywhere(x, counted, above)]
    massive = not ordinary(x[:, :1], above).all()
    if first > FIRST or massive:
        splices.append(Splice(through(at.sae), "out"))
    del x
    metrics, with_mean, *without = _evaluate(model, at, ids, boundary, above, splices)
    if not math.isfinite(metrics.distance):
        raise TiltmeterError(
            f"The SAE {at.name} returns non-finite reconstructions of activations at {at.site.name}: its weights are "
            "too large for them; give an SAE of this model and site."
        )
    warnings = [
        *_warnings(model, at, _first(ids, TRIED), boundary, metrics, with_mean.loss),
        *_first_position_warnings(at, first, massive, metrics, without),
        *_processing_warnings(model, at),
    ]
    about = at.sae.about
    return LoadCheck(metrics, with_mean.loss, about.l0, about.explained_variance, tuple(warnings))


def _warnings(
    model: SplitModel,
    at: SAEAtSite,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    metrics: SAEMetrics,
    mean_loss: float,
) -> list[str]:
    """Warn of what is off, and name the likely cause.

    Near trials are made unless the SAE explains as much as its files state: then it is used as it was meant to be.
    """
    warnings, published = [*_metric_warnings(at, metrics, mean_loss)], at.sae.about.explained_variance
    if not warnings and published is not None and metrics.explained_variance >= published - SAME:
        return []
    near = diagnose(model, at, ids, boundary, metrics.norm)
    if near.used.slope < LONG:
        warnings.append(
            f"Reconstructions by {at.name} at {at.site.name} are too far from their mean: {near.used.slope:.2g} times "
            "as far would fit best."
        )
    if warnings:
        return [*warnings, likely_cause(model, at, ids, boundary, metrics, near)]
    if sentence := near.sentence:
        return [f"{at.name} explains {near.used.explained_variance:.3f} of the variance. {sentence}"]
    return []


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
    elif published is None and not explained >= 0 and not _keeps_the_output(at, metrics, mean_loss):
        yield f"{sae} explains {explained:.3f} of the variance, less than the mean activation does."
    if metrics.loss > mean_loss + HARM > metrics.clean_loss + 2 * HARM:
        yield (
            f"With {sae} spliced in, the loss is {metrics.loss:.3f} nats, worse than with every activation replaced by "
            f"the mean ({mean_loss:.3f}); the clean loss is {metrics.clean_loss:.3f}."
        )


def _keeps_the_output(at: SAEAtSite, metrics: SAEMetrics, mean_loss: float) -> bool:
    """Whether the SAE is an end-to-end one, which need not explain anything; few files state it, but the loss tells."""
    recovered = mean_loss - metrics.loss > KEEPS * (mean_loss - metrics.clean_loss) > 0
    return at.sae.about.kind in END_TO_END_KINDS or recovered


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


def _first_error(at: SAEAtSite, x: Float[Tensor, "sequence 1 d_site"]) -> float:
    """Mean relative error at first positions; 0 where that has no meaning."""
    norms = x.norm(dim=-1)
    return float(((at.reconstruct(x) - x).norm(dim=-1) / norms).mean()) if norms.all() else 0.0


def _first_position_warnings(
    at: SAEAtSite, first: float, massive: bool, metrics: SAEMetrics, without: Sequence[SAEMetrics]
) -> Iterator[str]:
    """Warn where first positions have a far larger error than others, or are massive, and cause most of the KL.

    Activations at first positions have norms far above all others, and many SAEs are not trained on them.
    """
    elsewhere = metrics.distance / metrics.norm if metrics.norm else math.inf
    for kept in without:
        if (massive or first > 3 * elsewhere) and metrics.kl > HARM and kept.kl < metrics.kl / 2:
            yield (
                f"The relative error of {at.name} is {first:.3g} at first positions and {elsewhere:.3g} elsewhere; the "
                f"KL is {metrics.kl:.3g}, but {kept.kl:.3g} if boundary positions keep their activations: exclude them "
                "from the perturbation (--bos-perturbation out)."
            )


def _evaluate(
    model: SplitModel,
    at: SAEAtSite,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    above: float,
    splices: Sequence[Splice],
) -> list[SAEMetrics]:
    batch = min(8, max(1, CHUNK_ELEMENTS // (at.size * ids.shape[1])))
    return evaluate_each(model, splices, ids, boundary, at.site, above, batch)


def _mean_everywhere(
    x: Float[Tensor, "sequence position d_site"], counted: Bool[Tensor, "sequence position"], above: float
) -> Splice:
    """Every activation replaced by the mean of those that are neither massive nor at the boundary."""
    total, count = torch.zeros(x.shape[-1], dtype=torch.float64, device=x.device), 0
    for rows, wanted in zip(x.split(8), counted.split(8), strict=True):
        taken = rows[(wanted & ordinary(rows, above)).to(x.device)]
        total, count = total + taken.double().sum(0), count + len(taken)
    mean = total / count
    return Splice(lambda x: (x.new_zeros(x.shape), mean.to(x).expand_as(x)))


def _first(ids: Int[Tensor, "sequence position"], tokens: int) -> Int[Tensor, "first position"]:
    """The first sequences, of about this many tokens in total."""
    return ids[: max(1, tokens // ids.shape[1])]
