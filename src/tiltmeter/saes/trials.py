"""Other ways to use an SAE, each the correction of one known mistake.

`NEAR` trials are of mistakes after which an SAE may still explain much: they are made for every SAE whose files do not
state what it explains. `FAR` trials are made only where something is off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import STREAM, Site, all_sites
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.affine import AffineSAE, value_constant
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.compatibility import has_two_streams, is_same_site
from tiltmeter.saes.sae import SAE, About, LinearSAE, TopK

MANY = 4.0
"""An L0 this many times the published one suggests a top-k SAE read as a ReLU one."""

LAYERS = 2
"""Sites this many layers away are tried for every SAE; those farther away only where something is off."""

SCALES = (0.25, 0.5, 2.0, 4.0)
"""Factors by which activations are scaled."""

KEPT = (8, 32, 128, 512)
"""Numbers of latents of a token that are kept."""

UNEVEN = 1.2
"""Decoder rows are of unequal length if the longest tenth is more than this many times as long as the shortest."""

CauseKind = Literal["stream", "biases", "b_dec", "site", "first token", "top-k", "scale", "rows"]
"""Kinds of cause, the most common first."""


class Trial(NamedTuple):
    """Another way to use an SAE, and the cause of the bad fit if it is the right way."""

    kind: CauseKind
    at: SAEAtSite
    cause: str
    by_l0: bool = False
    """Whether it was chosen by the published L0."""


def near_trials(model: SplitModel, at: SAEAtSite, norm: float) -> list[Trial]:
    """The trials that are made for every SAE.

    Args:
        model: the model, set to the stream (centred or raw) in which activations are measured.
        at: the SAE as it is used.
        norm: mean norm of the activations.
    """
    sites = [trial for trial in _sites(model, at) if _distance(trial.at.site, at.site) <= LAYERS]
    return [
        *_streams(model, at),
        *_folded(model, at),
        *_conventions(at),
        *sites,
        *_scales(at, norm),
        *_factors(at),
        *_kept(at),
        *_unit_rows(at),
    ]


def far_trials(model: SplitModel, at: SAEAtSite, l0: float) -> list[Trial]:
    """The trials that are made where something is off; `l0` is measured."""
    sites = [trial for trial in _sites(model, at) if _distance(trial.at.site, at.site) > LAYERS]
    return [*sites, *_top_k(at, l0)]


def _distance(one: Site, other: Site) -> float:
    """Layers between two sites of one kind; infinity between kinds."""
    if one.kind in STREAM and other.kind in STREAM:
        return float(abs(one.boundary - other.boundary))
    return float(abs(one.layer - other.layer)) if one.kind == other.kind else math.inf


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


def _scales(at: SAEAtSite, norm: float) -> Iterator[Trial]:
    """SAEs trained on activations scaled to a mean norm of √d_site, with the factor missing from some weights.

    SAELens calls this `expected_average_only_in`, and folds the factor s into the weights when training ends.
    """
    bias = _output_bias(at.sae)
    if bias is None or not norm > 0:
        return
    s = math.sqrt(len(bias)) / norm
    trained = "activations scaled to a mean norm of √d_site"
    cause = f"it was trained on {trained}: fold the factor {s:.4g} into its weights"
    yield Trial("scale", _affine(at, torch.zeros_like(bias), s), cause)
    if isinstance(at.sae, LinearSAE):
        divided = replace(at.sae, b_dec=at.sae.b_dec / s, input_bias=at.sae.input_bias / s)
        cause = f"its b_dec, unlike its other weights, is of {trained}: divide b_dec by {s:.4g}"
        yield Trial("scale", replace(at, sae=divided), cause)
        divided = replace(at.sae, b_enc=at.sae.b_enc / s)
        cause = f"its b_enc, unlike its b_dec, is of {trained}: divide b_enc by {s:.4g}"
        yield Trial("scale", replace(at, sae=divided), cause)


def _factors(at: SAEAtSite) -> Iterator[Trial]:
    """Any other factor. That of the best fit need not be 1, since L1 norms shrink latents, but it is near 1."""
    if (bias := _output_bias(at.sae)) is not None:
        for s in SCALES:
            cause = f"it expects activations scaled by about {s:g} (fold the factor into its weights)"
            yield Trial("scale", _affine(at, torch.zeros_like(bias), s), cause)


def _kept(at: SAEAtSite) -> Iterator[Trial]:
    """Fewer latents of each token, as if those with small values fired only since a k or a threshold is missing."""
    about = at.sae.about
    for k in (max(1, round(about.l0)),) if about.l0 else KEPT:
        cause = (
            f"too many of its latents fire: it fits better with the {k} largest of each token alone, as an SAE does "
            "whose k or thresholds are missing or wrong (load it with its activation: topk, batchtopk or jumprelu)"
        )
        if about.l0 and about.architecture == "standard":
            cause = _read_as_relu(k)
        if k < at.size:
            yield Trial("top-k", replace(at, sae=_KeepTop(about, at.sae, k)), cause)


def _read_as_relu(k: int) -> str:
    return f"it is a top-k SAE read as a ReLU one (load it with k = {k})"


def _unit_rows(at: SAEAtSite) -> Iterator[Trial]:
    """Decoder rows at unit length, where they are not: as if rows were scaled and the encoder was not."""
    if not isinstance(at.sae, LinearSAE):
        return
    lengths = at.sae.W_dec.norm(dim=-1, keepdim=True)
    low, high = lengths.quantile(torch.tensor([0.1, 0.9]).to(lengths)).tolist()
    if low > 0 and high / low > UNEVEN:
        sae = replace(at.sae, W_dec=at.sae.W_dec / lengths.clamp(min=1e-12))
        cause = "its decoder rows were scaled, and its encoder was not (divide each row by its norm)"
        yield Trial("rows", replace(at, sae=sae), cause)


def _output_bias(sae: SAE) -> Float[Tensor, "d_site"] | None:
    """The reconstruction when no latent fires; None if that depends on the token."""
    try:
        return sae.decode(torch.zeros_like(sae.decoder[:, 0]))
    except TiltmeterError:
        return None


def _top_k(at: SAEAtSite, l0: float) -> Iterator[Trial]:
    published = at.sae.about.l0
    if at.sae.about.architecture == "standard" and published and l0 >= MANY * published:
        k = min(max(1, round(published)), at.size)
        kept = _KeepTop(at.sae.about, at.sae, k)
        yield Trial("top-k", replace(at, sae=kept), _read_as_relu(k), by_l0=True)


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
