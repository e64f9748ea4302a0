"""Why an SAE does badly where it is used, found by trying other ways to use it on some of the tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import STREAM, all_sites
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.affine import AffineSAE, value_constant
from tiltmeter.saes.at_site import AtSite
from tiltmeter.saes.compatibility import has_two_streams, is_same_place
from tiltmeter.saes.evaluation import Fit, SAEMetrics, fits
from tiltmeter.saes.sae import SAE, About, TopK

MANY = 4.0
"""Times the published L0 that speak for a top-k SAE read as a ReLU one."""

WORTH = 0.3
"""Explained variance that a likely cause reaches at least, besides halving what is not explained."""

NEAR = 0.05
"""Explained variances that differ by no more may be of one SAE on two texts."""

CLOSE = 0.02
"""Explained variances that differ by no more do not decide between kinds of cause; what happens more often does."""

Kind = Literal["stream", "biases", "site", "first token", "top-k", "scale"]


class Trial(NamedTuple):
    """Another way to use an SAE, and what would be the cause if it were the right one."""

    kind: Kind
    at: AtSite
    cause: str


class Found(NamedTuple):
    """The explained variance that a cause accounts for."""

    explained_variance: float
    kind: Kind
    cause: str


def likely_cause(
    model: SplitModel, at: AtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, quality: SAEMetrics
) -> str:
    """A sentence: the trial in which the SAE explains the activations best, if that is much better than as it is used.

    Args:
        model: in the stream it is measured in.
        at: the SAE as it is used.
        ids: the sequences that trials are run on.
        boundary: the token that begins a document.
        quality: of the SAE as it is used.
    """
    trials = [*_streams(model, at), *_folded(model, at), *_sites(model, at), *_scales(at, quality)]
    trials += _top_k(at, quality)
    used, *tried = fits(model, [at, *(trial.at for trial in trials)], ids, boundary)
    found = [
        Found(fit.explained_variance, trial.kind, trial.cause)
        for trial, fit in zip(trials, tried, strict=True)
        if _accounts_for(trial, fit, used, at.sae.about.explained_variance)
    ]
    found += _beginnings(model, at, ids, boundary, used)
    if not found:
        known = _trained(at, ids, boundary)
        return f"No likely cause was found: no other stream, site, scale or first token helps{known}."
    best = _likeliest(found)
    return (
        f"Likely cause: {best.cause}; so it explains {best.explained_variance:.3f} of the variance, and "
        f"{used.explained_variance:.3f} as it is used."
    )


def _likeliest(found: Sequence[Found]) -> Found:
    """The best of the most common kind among those that are close to the best of all."""
    least = max(found).explained_variance - CLOSE
    close = [one for one in found if one.explained_variance >= least]
    kind = min((one.kind for one in close), key=get_args(Kind).index)
    return max(one for one in close if one.kind == kind)


def _accounts_for(trial: Trial, fit: Fit, used: Fit, published: float | None) -> bool:
    if trial.kind == "top-k":  # what is chosen for its L0 need not explain more
        return fit.explained_variance >= used.explained_variance - NEAR
    return _is_much_better(fit, used) or _is_as_published(fit, used, published)


def _is_as_published(fit: Fit, used: Fit, published: float | None) -> bool:
    """Whether it explains what its files say and far less as it is used: one layer off may not halve the error."""
    if published is None:
        return False
    return fit.explained_variance >= max(published - NEAR, used.explained_variance + 2 * NEAR)


def _is_much_better(fit: Fit, used: Fit) -> bool:
    unexplained = 1 - (used.explained_variance if math.isfinite(used.explained_variance) else -math.inf)
    return fit.explained_variance >= WORTH and 1 - fit.explained_variance <= unexplained / 2


def _streams(model: SplitModel, at: AtSite) -> Iterator[Trial]:
    """The raw stream in a centred measurement, and the reverse."""
    if not has_two_streams(model, at.site):
        return
    if model.centred:
        yield Trial(
            "stream", replace(at, centre=_as_it_is), "it expects the raw residual stream (measure with --stream raw)"
        )
    else:
        yield Trial(
            "stream", replace(at, centre=_centred), "it expects the centred stream (measure with --stream centred)"
        )


def _folded(model: SplitModel, at: AtSite) -> Iterator[Trial]:
    if at.site.kind == "z" and bool((constant := value_constant(model, at.site)).any()):
        yield Trial(
            "biases",
            _moved(at, -constant),
            "it expects z without what the value biases bring there, as TransformerLens folds them (wrap it in "
            "tiltmeter.saes.affine.unfolded)",
        )


def _sites(model: SplitModel, at: AtSite) -> Iterator[Trial]:
    """The residual stream between any two blocks, and the same kind of site in other layers."""
    for site in all_sites(model.n_layers):
        stream = site.kind == "resid_pre" or (site.kind == "resid_post" and site.layer == model.n_layers - 1)
        fits_there = stream and model.width == at.sae.decoder.shape[1]
        if (fits_there or site.kind == at.site.kind not in STREAM) and not is_same_place(site, at.site):
            there = replace(at, site=site, centre=partial(model.centre, site=site))
            yield Trial("site", there, f"it belongs to {site.name} (use it there)")


def _scales(at: AtSite, quality: SAEMetrics) -> Iterator[Trial]:
    """SAEs trained on activations scaled to a mean norm of √d_site, with the factor left out here or there.

    SAELens calls that `expected_average_only_in`, and folds the factor s into the weights when training ends.
    """
    bias = _output_bias(at.sae)
    if bias is None or not quality.norm > 0:
        return
    s = math.sqrt(len(bias)) / quality.norm
    trained, zero = "activations scaled to a mean norm of √d_site", torch.zeros_like(bias)
    for shift, scale, cause in (
        (zero, s, f"it was trained on {trained}: fold the factor {s:.4g} into its weights"),
        (bias - bias / s, 1.0, f"its b_dec is of {trained}, and its other weights are not: divide b_dec by {s:.4g}"),
        (bias - s * bias, s, f"its b_enc is of {trained}, and its b_dec is not: divide b_enc by {s:.4g}"),
    ):
        yield Trial("scale", _moved(at, shift, scale), cause)


def _output_bias(sae: SAE) -> Float[Tensor, "d_site"] | None:
    """What no latents decode to; None where that depends on the token."""
    try:
        return sae.decode(torch.zeros_like(sae.decoder[:, 0]))
    except TiltmeterError:
        return None


def _top_k(at: AtSite, quality: SAEMetrics) -> Iterator[Trial]:
    published = at.sae.about.l0
    if at.sae.about.architecture == "standard" and published and quality.l0 >= MANY * published:
        k = min(max(1, round(published)), at.size)
        kept = _KeepTop(at.sae.about, at.sae, k)
        yield Trial("top-k", replace(at, sae=kept), f"it is a top-k SAE read as a ReLU one (load it with k = {k})")


def _beginnings(
    model: SplitModel, at: AtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, used: Fit
) -> Iterator[Found]:
    """Sequences with the boundary token in front where it is not, and without it where it is."""
    if boundary is None or ids.shape[1] < 3:
        return
    if _begin_with(ids, boundary):
        other, cause = ids[:, 1:], "it expects sequences that do not begin with the boundary token, and these do"
    else:
        other = torch.cat([torch.full_like(ids[:, :1], boundary), ids[:, :-1]], 1)
        cause = "it expects sequences that begin with the boundary token, and these do not"
    [fit] = fits(model, [at], other, boundary)
    if _is_much_better(fit, used):
        yield Found(fit.explained_variance, "first token", cause)


def _trained(at: AtSite, ids: Int[Tensor, "sequence position"], boundary: int | None) -> str:
    """What is worth knowing of the first tokens, though it does not help."""
    wanted = at.sae.about.prepend_bos
    if wanted is None or boundary is None or wanted == _begin_with(ids, boundary):
        return ""
    return f", though its files say that it was trained {'with' if wanted else 'without'} a boundary token in front"


def _begin_with(ids: Int[Tensor, "sequence position"], boundary: int) -> bool:
    return bool((ids[:, 0] == boundary).all())


def _moved(at: AtSite, shift: Float[Tensor, "d_site"], scale: float = 1.0) -> AtSite:
    return replace(at, sae=AffineSAE(at.sae.about, at.sae, shift, scale))


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


@dataclass(frozen=True)
class _KeepTop:
    """An SAE with the k largest latents of each token alone."""

    about: About
    sae: SAE
    k: int

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        return self.sae.decoder

    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        return TopK(self.k)(self.sae.encode(x))

    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        return self.sae.decode(latents, like=like)

    def to(self, device: torch.device, dtype: torch.dtype) -> SAE:
        return replace(self, sae=self.sae.to(device, dtype))
