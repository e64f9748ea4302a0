"""The load guard: whether an SAE is, where it is used, what its files say; and if it is not, the likely cause.

Figures are taken on a few thousand tokens and compared with the published ones and with sense. Causes are tried only
where a figure is off, since they cost forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import InOrOut, allowed, boundary_mask
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import AT_ONCE, AtSite
from tiltmeter.saes.compatibility import check_place, stream_disagreement
from tiltmeter.saes.diagnosis import likely_cause
from tiltmeter.saes.evaluation import SAEMetrics, evaluate, through
from tiltmeter.saes.sae import END_TO_END_KINDS

__all__ = ["LoadCheck", "check_place", "guard"]

FAR = 2.0
"""An L0 of more than this many times the published one, or of less than that part of it, is off."""

SHORT, MORE = 0.05, 1.4
"""An explained variance is off where it is this far below the published one and leaves so many times the variance
unexplained. Publishers differ in text and in what they count."""

HARM = 0.01
"""Nats up to which an SAE does no harm: KL that its error at first positions makes, differences of losses."""

TRIED = 1024
"""Tokens, about, that causes are tried on."""


@dataclass(frozen=True)
class LoadCheck:
    """An SAE's figures where it is used, and what is wrong with them."""

    quality: SAEMetrics
    mean_loss: float
    """Cross-entropy with the mean activation of the site in the place of every activation, nats per token."""
    published_l0: float | None
    published_explained_variance: float | None
    findings: tuple[str, ...]
    """Sentences: what is off, and the likely cause. Empty where all is well."""

    def to_json(self) -> dict[str, Any]:
        """For the manifest. Numbers that are not finite are None."""
        figures = {key: value for key, value in vars(self).items() if key not in ("quality", "findings")}
        return {
            "quality": _finite(asdict(self.quality)),
            **_finite(figures),
            "findings": list(self.findings),
        }


def guard(model: SplitModel, at: AtSite, tokens: TokenSet, budget: int = 4096) -> LoadCheck:
    """Measure an SAE where it is used, and say what is off and why.

    Args:
        model: in the stream it is measured in.
        at: the SAE at its site.
        tokens: token sequences, of which the first are taken.
        budget: how many tokens; at least one sequence is taken.

    Raises:
        TiltmeterError: an SAE of another width than the site's, or whose output is not finite; sequences that have none
            but boundary positions.
    """
    ids = _first(tokens.ids, budget)
    at.check_width(model.activation(ids[:1, :1], at.site).shape[-1])
    quality = _assess(model, at, ids, tokens.boundary)
    if not math.isfinite(quality.distance):
        raise TiltmeterError(
            f"What the SAE {at.name} makes of activations at {at.site.name} is not finite: its weights are too large "
            "for them; give an SAE of this model and site."
        )
    mean_loss = _mean_loss(model, at, ids, tokens.boundary)
    findings = list(_off(at, quality, mean_loss))
    if findings:
        findings.append(likely_cause(model, at, _first(ids, TRIED), tokens.boundary, quality))
    findings += _boundary(model, at, ids, tokens.boundary, quality)
    findings += _said(model, at)
    about = at.sae.about
    return LoadCheck(quality, mean_loss, about.l0, about.explained_variance, tuple(findings))


def _off(at: AtSite, quality: SAEMetrics, mean_loss: float) -> Iterator[str]:
    """What is far from the published figures, or from sense."""
    about, l0, explained = at.sae.about, quality.l0, quality.explained_variance
    sae = f"{at.name} at {at.site.name}"
    if l0 == 0:
        yield f"No latent of {sae} fires."
    elif about.l0 and not 1 / FAR <= l0 / about.l0 <= FAR:
        yield f"The L0 of {sae} is {l0:.4g}, and {about.l0:.4g} by its files."
    elif l0 > at.size / 2:
        yield f"The L0 of {sae} is {l0:.4g}: more than half of its {at.size} latents fire on a token."
    published = about.explained_variance
    if published is not None and _is_short(explained, published):
        yield f"{sae} explains {explained:.3f} of the variance, and {published:.3f} by its files."
    elif published is None and not explained >= 0 and about.kind not in END_TO_END_KINDS:
        yield f"{sae} explains {explained:.3f} of the variance, less than the mean activation does."
    if quality.loss > mean_loss + HARM > quality.clean_loss + 2 * HARM:
        yield (
            f"The loss with {sae} is {quality.loss:.3f} nats, worse than {mean_loss:.3f} with the mean activation in "
            f"the place of everything; without either it is {quality.clean_loss:.3f}."
        )


def _is_short(explained: float, published: float) -> bool:
    return not (explained >= published - SHORT or 1 - explained <= MORE * (1 - published))


def _said(model: SplitModel, at: AtSite) -> Iterator[str]:
    """What its files say of the model's processing, where that is another."""
    if disagreement := stream_disagreement(at.sae, model, at.site):
        yield disagreement
    if at.site.kind == "z" and at.sae.about.processing == "folded":
        yield (
            f"The SAE {at.name} expects z without what the value biases bring there; wrap it in "
            "tiltmeter.saes.affine.unfolded."
        )


@torch.no_grad()
def _boundary(
    model: SplitModel, at: AtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, quality: SAEMetrics
) -> Iterator[str]:
    """Whether first positions, with a far larger error than others, are what raises the loss."""
    x = model.activation(ids[:, :1], at.site)
    if not quality.norm > 0 or not x.norm(dim=-1).all():  # nothing there to be reconstructed
        return
    first = float(((at.reconstruct(x) - x).norm(dim=-1) / x.norm(dim=-1)).mean())
    elsewhere = quality.distance / quality.norm
    if not first > max(0.5, 3 * elsewhere):
        return
    without = _assess(model, at, ids, boundary, "out")
    if quality.kl > HARM and without.kl < quality.kl / 2:
        yield (
            f"At first positions the error of {at.name} is {first:.3g} of the norm, and {elsewhere:.3g} at others; the "
            f"KL is {quality.kl:.3g}, and {without.kl:.3g} where boundary positions keep their activations: leave them "
            "out of the perturbation (--bos-perturbation out)."
        )


def _assess(
    model: SplitModel,
    at: AtSite,
    ids: Int[Tensor, "sequence position"],
    boundary: int | None,
    spliced: InOrOut = "in",
) -> SAEMetrics:
    batch = min(8, max(1, AT_ONCE // (at.size * ids.shape[1])))
    return evaluate(model, through(at.sae), ids, boundary, at.site, spliced, batch)


@torch.no_grad()
def _mean_loss(
    model: SplitModel, at: AtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, batch: int = 8
) -> float:
    """The loss with one vector everywhere: the mean activation of all but boundary positions."""
    counted = allowed(boundary_mask(ids, boundary), "out")
    total: Tensor = torch.zeros(())
    for rows, wanted in zip(ids.split(batch), counted.split(batch), strict=True):
        x = model.activation(rows, at.site)
        total = x[wanted.to(x.device)].double().sum(0) + total.to(x.device)
    mean = total / counted.sum().item()
    return evaluate(model, lambda x: (x.new_zeros(x.shape), mean.to(x).expand_as(x)), ids, boundary, at.site).loss


def _first(ids: Int[Tensor, "sequence position"], tokens: int) -> Int[Tensor, "first position"]:
    """The first sequences, of about so many tokens together."""
    return ids[: max(1, tokens // ids.shape[1])]


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if value is None or math.isfinite(value) else None for key, value in figures.items()}
