"""Why an SAE reconstructs badly where it is used, found by trying other ways to use it on some of the tokens.

Each trial corrects one known mistake: the other stream (centred or raw), value biases not folded, the other convention
for b_dec, another layer, a scale factor left out of the weights, a missing or surplus boundary token, a top-k SAE read
as a ReLU one. If the SAE explains much more of the variance in one of them, that mistake is the likely cause.
"""

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
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.compatibility import has_two_streams, is_same_site
from tiltmeter.saes.evaluation import Fit, SAEMetrics, fits
from tiltmeter.saes.sae import SAE, About, LinearSAE, TopK

MANY = 4.0
"""An L0 this many times the published one suggests a top-k SAE read as a ReLU one."""

WORTH = 0.3
"""Least explained variance in the trial of a likely cause, which must also halve the unexplained variance."""

NEAR = 0.05
"""Explained variances of one SAE on two texts may differ by this much."""

CLOSE = 0.02
"""Explained variances that differ by no more do not decide between kinds of cause; the more common kind is named."""

CauseKind = Literal["stream", "biases", "b_dec", "site", "first token", "top-k", "scale"]
"""Kinds of cause, the most common first."""


class Trial(NamedTuple):
    """Another way to use an SAE, and the cause of the bad fit if it is the right way."""

    kind: CauseKind
    at: SAEAtSite
    cause: str


class Explanation(NamedTuple):
    """A possible cause, with the explained variance once it is corrected. Sorts by the latter."""

    explained_variance: float
    kind: CauseKind
    cause: str


def likely_cause(
    model: SplitModel, at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, metrics: SAEMetrics
) -> str:
    """Name the likely cause, in a sentence: the trial in which the SAE explains much more than as it is used.

    Args:
        model: the model, set to the stream (centred or raw) in which activations are measured.
        at: the SAE as it is used.
        ids: the sequences on which trials are run.
        boundary: id of the token that begins a document.
        metrics: metrics of the SAE as it is used.
    """
    trials = [*_streams(model, at), *_folded(model, at), *_conventions(at), *_sites(model, at), *_scales(at, metrics)]
    trials += _top_k(at, metrics)
    used, *tried = fits(model, [at, *(trial.at for trial in trials)], ids, boundary)
    found = [
        Explanation(fit.explained_variance, trial.kind, trial.cause)
        for trial, fit in zip(trials, tried, strict=True)
        if _accounts_for(trial, fit, used, at.sae.about.explained_variance)
    ]
    found += _first_tokens(model, at, ids, boundary, used)
    if not found:
        hint = _first_token_hint(at, ids, boundary)
        return f"No likely cause was found: no other stream, site, scale or first token helps{hint}."
    best = _likeliest(found)
    return (
        f"Likely cause: {best.cause}. It would then explain {best.explained_variance:.3f} of the variance instead of "
        f"{used.explained_variance:.3f}."
    )


def other_convention(
    model: SplitModel, at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None
) -> list[str]:
    """A warning if the SAE would explain much more with the other convention for b_dec, and nothing else is off.

    Read in the wrong one, an SAE may still explain half of the variance.
    """
    trials = [*_conventions(at)]
    used, *tried = fits(model, [at, *(trial.at for trial in trials)], ids, boundary)
    return [
        f"{at.name} explains {used.explained_variance:.3f} of the variance. Likely cause: {trial.cause}. It would then "
        f"explain {fit.explained_variance:.3f}."
        for trial, fit in zip(trials, tried, strict=True)
        if _is_much_better(fit, used)
    ]


def _likeliest(found: Sequence[Explanation]) -> Explanation:
    """The best explanation of the most common kind among those close to the best of all."""
    least = max(found).explained_variance - CLOSE
    close = [one for one in found if one.explained_variance >= least]
    kind = min((one.kind for one in close), key=get_args(CauseKind).index)
    return max(one for one in close if one.kind == kind)


def _accounts_for(trial: Trial, fit: Fit, used: Fit, published: float | None) -> bool:
    if trial.kind == "top-k":  # it is chosen by its L0, and need not explain more
        return fit.explained_variance >= used.explained_variance - NEAR
    return _is_much_better(fit, used) or _is_as_published(fit, used, published)


def _is_as_published(fit: Fit, used: Fit, published: float | None) -> bool:
    """Whether the SAE explains as much as its files state, and less as it is used.

    This catches an SAE one layer off, where the unexplained variance may be less than twice as large.
    """
    if published is None:
        return False
    return fit.explained_variance >= max(published - NEAR, used.explained_variance + 2 * NEAR)


def _is_much_better(fit: Fit, used: Fit) -> bool:
    unexplained = 1 - (used.explained_variance if math.isfinite(used.explained_variance) else -math.inf)
    return fit.explained_variance >= WORTH and 1 - fit.explained_variance <= unexplained / 2


def _streams(model: SplitModel, at: SAEAtSite) -> Iterator[Trial]:
    """The raw stream where activations are measured centred, and the reverse.

    The mean over d_model is invisible to a LayerNorm model, but not to an SAE: one trained with it (or without it)
    meets an offset it never saw.
    """
    if not has_two_streams(model, at.site):
        return
    if model.centred:
        yield Trial(
            "stream", replace(at, centre=_uncentred), "it expects the raw residual stream (measure with --stream raw)"
        )
    else:
        yield Trial(
            "stream", replace(at, centre=_centred), "it expects the centred stream (measure with --stream centred)"
        )


def _folded(model: SplitModel, at: SAEAtSite) -> Iterator[Trial]:
    """At `hook_z`, the value biases folded away as TransformerLens does by default."""
    if at.site.kind == "z" and bool((constant := value_constant(model, at.site)).any()):
        yield Trial(
            "biases",
            _affine(at, -constant),
            "it expects z without the value biases, as TransformerLens folds them (wrap it with "
            "tiltmeter.saes.affine.unfold_value_biases)",
        )


def _conventions(at: SAEAtSite) -> Iterator[Trial]:
    """b_dec subtracted from the input, where it is not, and the reverse: weights alone do not say which is right."""
    if not isinstance(at.sae, LinearSAE) or not bool(at.sae.b_dec.any()):
        return
    if bool(at.sae.input_bias.any()):
        other, cause = torch.zeros_like(at.sae.b_dec), "its b_dec is not subtracted from the input, and here it is"
    else:
        other, cause = at.sae.b_dec, "its b_dec is subtracted from the input, and here it is not"
    says = "false" if bool(at.sae.input_bias.any()) else "true"
    there = replace(at, sae=replace(at.sae, input_bias=other))
    yield Trial("b_dec", there, f"{cause} (load its weights with ?apply_b_dec_to_input={says})")


def _sites(model: SplitModel, at: SAEAtSite) -> Iterator[Trial]:
    """The residual stream between any two blocks, and the same kind of site in other layers."""
    for site in all_sites(model.n_layers):
        stream = site.kind == "resid_pre" or (site.kind == "resid_post" and site.layer == model.n_layers - 1)
        fits_there = stream and model.width == at.sae.decoder.shape[1]
        if (fits_there or site.kind == at.site.kind not in STREAM) and not is_same_site(site, at.site):
            there = replace(at, site=site, centre=partial(model.centre, site=site))
            yield Trial("site", there, f"it belongs to {site.name} (use it there)")


def _scales(at: SAEAtSite, metrics: SAEMetrics) -> Iterator[Trial]:
    """SAEs trained on activations scaled to a mean norm of √d_site, with the factor missing from some weights.

    SAELens calls this `expected_average_only_in`, and folds the factor s into the weights when training ends.
    """
    bias = _output_bias(at.sae)
    if bias is None or not metrics.norm > 0:
        return
    s = math.sqrt(len(bias)) / metrics.norm
    trained, zero = "activations scaled to a mean norm of √d_site", torch.zeros_like(bias)
    for shift, scale, cause in (
        (zero, s, f"it was trained on {trained}: fold the factor {s:.4g} into its weights"),
        (bias - bias / s, 1.0, f"its b_dec, unlike its other weights, is of {trained}: divide b_dec by {s:.4g}"),
        (bias - s * bias, s, f"its b_enc, unlike its b_dec, is of {trained}: divide b_enc by {s:.4g}"),
    ):
        yield Trial("scale", _affine(at, shift, scale), cause)


def _output_bias(sae: SAE) -> Float[Tensor, "d_site"] | None:
    """The reconstruction when no latent fires; None if that depends on the token."""
    try:
        return sae.decode(torch.zeros_like(sae.decoder[:, 0]))
    except TiltmeterError:
        return None


def _top_k(at: SAEAtSite, metrics: SAEMetrics) -> Iterator[Trial]:
    published = at.sae.about.l0
    if at.sae.about.architecture == "standard" and published and metrics.l0 >= MANY * published:
        k = min(max(1, round(published)), at.size)
        kept = _KeepTop(at.sae.about, at.sae, k)
        yield Trial("top-k", replace(at, sae=kept), f"it is a top-k SAE read as a ReLU one (load it with k = {k})")


def _first_tokens(
    model: SplitModel, at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None, used: Fit
) -> Iterator[Explanation]:
    """The sequences with the boundary token prepended if they lack it, and without it if they begin with it."""
    if boundary is None or ids.shape[1] < 3:
        return
    if _begin_with(ids, boundary):
        other, cause = ids[:, 1:], "it expects sequences that do not begin with the boundary token, and these do"
    else:
        other = torch.cat([torch.full_like(ids[:, :1], boundary), ids[:, :-1]], 1)
        cause = "it expects sequences that begin with the boundary token, and these do not"
    [fit] = fits(model, [at], other, boundary)
    if _is_much_better(fit, used):
        yield Explanation(fit.explained_variance, "first token", cause)


def _first_token_hint(at: SAEAtSite, ids: Int[Tensor, "sequence position"], boundary: int | None) -> str:
    """A clause, if the SAE's files state another first token than these sequences have (changing it did not help)."""
    wanted = at.sae.about.prepend_bos
    if wanted is None or boundary is None or wanted == _begin_with(ids, boundary):
        return ""
    return f", though its files say that it was trained {'with' if wanted else 'without'} a boundary token prepended"


def _begin_with(ids: Int[Tensor, "sequence position"], boundary: int) -> bool:
    return bool((ids[:, 0] == boundary).all())


def _affine(at: SAEAtSite, shift: Float[Tensor, "d_site"], scale: float = 1.0) -> SAEAtSite:
    return replace(at, sae=AffineSAE(at.sae.about, at.sae, shift, scale))


def _uncentred(x: Tensor) -> Tensor:
    return x


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


@dataclass(frozen=True)
class _KeepTop:
    """An SAE of which only the k largest latents of each token are kept."""

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
