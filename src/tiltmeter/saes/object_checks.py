"""Whether an SAE object is what it seems, on real activations of the site: checked before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import THRESHOLD
from tiltmeter.saes.normalisation import NORMALISATIONS
from tiltmeter.saes.object_hashes import tensors_of
from tiltmeter.saes.own_functions import OwnSAE
from tiltmeter.saes.sae import SAE, JumpReLU, LinearSAE, TopK

AGREES = 1e-4
"""Two latents or reconstructions of a token agree if they differ by at most this fraction of the token's norm."""

ALONE = 8
"""Tokens that are also encoded alone."""

Tokens = Float[Tensor, "token d_site"]


class Differences(NamedTuple):
    """The largest relative difference of any token; 0 for what is not compared."""

    latents: float = 0.0
    reconstructions: float = 0.0

    @property
    def agree(self) -> bool:
        """Whether both are due to rounding. NaN never is."""
        return self.latents <= AGREES and self.reconstructions <= AGREES


@torch.no_grad()
def check_agrees(sae: LinearSAE, own: OwnSAE, x: Tokens) -> None:
    """Check that an SAE rebuilt from an object's weights gives what the object's own `encode` and `decode` give.

    Where they differ in float32, they are compared in float64 as well: rounding may decide on which side of a threshold
    a latent falls.

    Raises:
        TiltmeterError: they differ in more than rounding. A convention with which they would agree is named.
    """
    found = _differences(sae, own, x)
    if found.agree or _agree_in_float64(sae, own, x):
        return
    name, parts = sae.about.name, {"latents": found.latents, "reconstructions": found.reconstructions}
    apart = " and ".join(f"{part} differ by {value:.1e}" for part, value in parts.items() if not value <= AGREES)
    others = (said for said, other in _other_conventions(sae, own, x) if _differences(other, own, x).agree)
    if said := next(others, None):
        advice = f"they would agree with {said}: say so with tm.wrap_sae, or in its configuration"
    else:
        advice = (
            "no other convention agrees either: give it a version, and its own functions are used instead of its "
            'weights: tm.wrap_sae(object, version="...")'
        )
    raise TiltmeterError(
        f"{name} encodes or decodes in another way than its weights say: on {len(x)} activations of the site, "
        f"{apart} of their norm; {advice}."
    )


def _agree_in_float64(sae: LinearSAE, own: OwnSAE, x: Tokens) -> bool:
    with suppress(TiltmeterError):  # a module may compute in float32 whatever it is given
        exact = own.to(x.device, torch.float64)
        return _differences(sae.to(x.device, torch.float64), exact, x.double()).agree
    return False


def _differences(sae: LinearSAE, own: OwnSAE, x: Tokens) -> Differences:
    """Between the SAE and the object, whose `encode` and `decode` are called in turn; either may be missing."""
    ours = theirs = sae.encode(x)
    if hasattr(own.given, "encode"):
        theirs = own.encode(x)
        _expect(own, "encode", theirs, ours.shape[-1])
    if not hasattr(own.given, "decode"):
        return Differences(apart(ours, theirs))
    decoded = own.decode(theirs)
    _expect(own, "decode", decoded, x.shape[-1])
    return Differences(apart(ours, theirs), apart(sae.decode(ours, like=x), decoded))


def _other_conventions(sae: LinearSAE, own: OwnSAE, x: Tokens) -> Iterator[tuple[str, LinearSAE]]:
    """The same weights used in other ways, each with what `wrap_sae` calls it."""
    zero = torch.zeros_like(sae.b_dec)
    activations = {"": sae.activation, "activation='relu'": torch.relu}
    if hasattr(own.given, "encode"):
        k = int((own.encode(x) > 0).sum(-1).max())
        activations[f"activation='topk', k={k}"] = TopK(max(1, k))
    if (threshold := tensors_of(own.given).get(THRESHOLD)) is not None and threshold.numel() in (1, len(sae.b_enc)):
        activations["activation='jumprelu'"] = JumpReLU(threshold.to(sae.b_enc).expand(len(sae.b_enc)))
    for activation, function in activations.items():
        for subtracts in (True, False):
            for normalisation in NORMALISATIONS:
                said = [activation] if activation else []
                if subtracts != bool(sae.input_bias.any()):
                    said.append(f"apply_b_dec_to_input={subtracts}")
                if normalisation != sae.normalisation:
                    said.append(f"normalize_activations={normalisation!r}")
                bias = sae.b_dec if subtracts else zero
                yield (
                    ", ".join(said),
                    replace(sae, activation=function, input_bias=bias, normalisation=normalisation),
                )


@torch.no_grad()
def check_functions(sae: SAE, x: Tokens) -> None:
    """Check that an SAE's functions are functions of each token alone, of the right widths, finite and not negative.

    Raises:
        TiltmeterError: they are not; what is wrong is named.
    """
    name, before = sae.about.name, x.clone()
    latents = sae.encode(x)
    kept = latents.clone()
    decoded = sae.decode(latents, like=x)
    if not torch.equal(x, before) or not _equal(latents, kept):
        raise TiltmeterError(f"{name} changes the tensors that it is given; let its functions return new ones.")
    _expect(sae, "decode", decoded, x.shape[-1])
    for which, found in (("encode", latents), ("decode", decoded)):
        if not bool(torch.isfinite(found).all()):
            raise TiltmeterError(f"The {which} of {name} returned NaN or an infinity for a real activation; mend it.")
    if bool((latents < 0).any()):
        raise TiltmeterError(
            f"{name} has negative latents (down to {float(latents.min()):.3g}); tiltmeter supports SAEs whose latents "
            "are zero or positive: give the latents after the activation function."
        )
    if not _equal(latents, sae.encode(x)) or not _equal(decoded, sae.decode(latents, like=x)):
        raise TiltmeterError(
            f"{name} returned two different values for the same activations; switch its randomness off (dropout, "
            "noise), so that a run can be repeated."
        )
    _check_stateless(sae, x, latents, decoded)
    _check_alone(sae, x, latents, decoded)


def _check_stateless(sae: SAE, x: Tokens, latents: Tensor, decoded: Tensor) -> None:
    """Decode after other activations were encoded."""
    sae.encode(x.flip(0)[: max(1, len(x) // 2)] * 2)
    try:
        again = sae.decode(latents, like=x)
    except TiltmeterError as error:
        again, reason = None, f" ({str(error).rstrip('.')})"
    else:
        reason = ""
    if again is None or not _equal(again, decoded) or not _equal(sae.encode(x), latents):
        raise TiltmeterError(
            f"{sae.about.name} keeps something from one call to the next: its results depend on what was encoded before"
            f"{reason}; give an object whose encode and decode depend on their arguments alone."
        )


def _check_alone(sae: SAE, x: Tokens, latents: Tensor, decoded: Tensor) -> None:
    """Encode and decode a few tokens alone: the strongest, as they decide a maximum over the batch, and the first."""
    for token in {*range(min(ALONE, len(x))), int(latents.sum(-1).argmax()), int(latents.sum(-1).argmin())}:
        one = slice(token, token + 1)
        alone = sae.encode(x[one])
        other = sae.decode(latents[one], like=x[one])
        if not (_near(alone, latents[one], latents) and _near(other, decoded[one], decoded)):
            raise TiltmeterError(
                f"{sae.about.name} gives a token other values alone than among {len(x)}, so what it gives depends on "
                "the batch (batch top-k, normalisation over a batch); give it a form that sees one token at a time."
            )


@torch.no_grad()
def are_rows(sae: SAE, rows: Float[Tensor, "latent d_site"], x: Tokens) -> bool:
    """Whether a latent that grows moves the reconstruction by its row, for the strongest latent of a few tokens."""
    latents = sae.encode(x)
    chosen = latents.amax(-1).topk(min(ALONE, len(x))).indices
    latents = latents[chosen]
    at = latents.argmax(-1, keepdim=True)
    without = latents.scatter(-1, at, 0.0)
    moved = sae.decode(latents, like=x[chosen]) - sae.decode(without, like=x[chosen])
    expected = latents.gather(-1, at) * rows[at[:, 0]].to(moved)
    return bool((latents > 0).any()) and apart(moved, expected) <= 10 * AGREES  # a difference of large numbers


def apart(one: Float[Tensor, "token width"], other: Float[Tensor, "token width"]) -> float:
    """The largest difference of a token, as a fraction of its norm, or of the median token's where that is larger."""
    norms = other.double().norm(dim=-1)
    scale = norms.maximum(norms.median()).clamp(min=1e-30)
    return float(((one.double() - other.double()).norm(dim=-1) / scale).max())


def _near(one: Tensor, other: Tensor, among: Tensor) -> bool:
    typical = among.double().norm(dim=-1).median()
    scale = float(other.double().norm().maximum(typical).clamp(min=1e-30))
    return float((one.double() - other.double()).norm()) <= AGREES * scale


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _expect(sae: SAE, which: str, found: Tensor, width: int) -> None:
    if found.shape[-1] != width:
        raise TiltmeterError(
            f"The {which} of {sae.about.name} returned {found.shape[-1]} numbers for each token; expected {width}."
        )
