"""SAEs of four weights: W_enc, b_enc, W_dec and b_dec.

A threshold makes one a JumpReLU SAE, a k a top-k SAE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.hashes import weights_sha256
from tiltmeter.saes.sae import About, Activation, Gated, JumpReLU, LinearSAE, Processing, TopK, check_finite

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")
THRESHOLD = "threshold"
GATES = ("b_gate", "r_mag", "b_mag")
"""What a gated SAE has in the place of b_enc."""


@dataclass(frozen=True)
class Convention:
    """How weights are used, which cannot be read from the weights. The defaults are SAELens's."""

    apply_b_dec_to_input: bool = True
    """Whether b_dec is subtracted from an activation before it is encoded."""
    k: int | None = None
    """Number of latents a top-k SAE keeps; None for other SAEs."""
    normalisation: str = "none"
    """What is done to each token first: one of `NORMALISATIONS`."""


class Facts(TypedDict, total=False):
    """The fields of `About` other than name, architecture and hash."""

    kind: str | None
    hook_name: str | None
    model: str | None
    processing: Processing | None
    l0: float | None
    explained_variance: float | None
    prepend_bos: bool | None


def linear_sae(name: str, weights: Mapping[str, Tensor], convention: Convention, facts: Facts) -> LinearSAE:
    """Build an SAE from weights W_enc [d_site, latent], b_enc [latent], W_dec [latent, d_site], b_dec [d_site].

    A `threshold` ([latent], or one number for all) makes it a JumpReLU SAE; b_gate, r_mag and b_mag [latent], in the
    place of b_enc, make it a gated one. It is in float32, without gradients.

    Raises:
        TiltmeterError: weights are missing, do not fit together or are not finite; k is out of range.
    """
    weights = checked(name, weights)
    W_enc, b_enc, W_dec, b_dec = (weights[key] for key in WEIGHTS)
    architecture, activation = _activation(name, weights, convention.k)
    return LinearSAE(
        About(name, architecture, fingerprint(weights, _settings(architecture, convention)), **facts),
        W_enc,
        b_enc,
        W_dec,
        b_dec,
        input_bias=b_dec if convention.apply_b_dec_to_input else torch.zeros_like(b_dec),
        activation=activation,
        normalisation=convention.normalisation,
    )


def _settings(architecture: str, convention: Convention) -> dict[str, Any]:
    settings = {"architecture": architecture, "k": convention.k, "input_bias": convention.apply_b_dec_to_input}
    if convention.normalisation != "none":
        settings["normalisation"] = convention.normalisation
    return settings


def fingerprint(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Hash of an SAE: its weights, and the settings that decide how they are used."""
    return weights_sha256([*weights.items(), (json.dumps(settings, sort_keys=True), torch.empty(0))])


def fingerprints_of(sae: LinearSAE) -> set[str]:
    """The hashes that `linear_sae` gives to an SAE with these weights, used in this way. Usually there is one.

    Where b_dec is zero there are two, as it makes no difference whether it is subtracted.
    """
    weights = {key: getattr(sae, key) for key in WEIGHTS}
    k, activation = None, sae.activation
    if isinstance(activation, TopK):
        architecture, k = "topk", activation.k
    elif isinstance(activation, JumpReLU):
        architecture, weights[THRESHOLD] = "jumprelu", activation.threshold
    elif isinstance(activation, Gated):
        architecture, weights = "gated", weights | {key: getattr(activation, key) for key in GATES}
    elif activation is torch.relu:
        architecture = "standard"
    else:
        return set()
    weights = {key: tensor.to("cpu", torch.float32) for key, tensor in weights.items()}
    bias = sae.input_bias.to("cpu", torch.float32)
    subtracted = {True: torch.equal(bias, weights["b_dec"]), False: not bool(bias.any())}
    return {
        fingerprint(weights, _settings(architecture, Convention(subtracts, k, sae.normalisation)))
        for subtracts, is_so in subtracted.items()
        if is_so
    }


def check_same_space(name: str, d_in: int, d_out: int) -> None:
    """Check that input and output have one width; if not, this is a transcoder.

    Raises:
        TiltmeterError: the widths differ.
    """
    if d_in != d_out:
        raise TiltmeterError(
            f"{name} reads {d_in} numbers and writes {d_out}, so it is a transcoder: its output is not a "
            "reconstruction of its input; give an SAE."
        )


def checked(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in float32 and contiguous, the threshold expanded to one number per latent, b_enc 0 where gated.

    Raises:
        TiltmeterError: some are missing, of another shape or type, or not finite.
    """
    if all(gate in weights for gate in GATES) and "W_enc" in weights:
        weights = {"b_enc": torch.zeros(weights["W_enc"].shape[-1]), **weights}
    if missing := [key for key in WEIGHTS if key not in weights]:
        has = ", ".join(sorted(weights)[:4]) + (", ..." if len(weights) > 4 else "")
        raise TiltmeterError(
            f"{name} is not an SAE: it has no {' and no '.join(missing)} (it has {has or 'nothing'}); expected "
            f"{', '.join(WEIGHTS)}."
        )
    used = {key: weights[key] for key in (*WEIGHTS, THRESHOLD, *GATES) if key in weights}
    if wrong := [key for key, tensor in used.items() if not tensor.is_floating_point()]:
        raise TiltmeterError(
            f"{wrong[0]} of {name} is of type {used[wrong[0]].dtype}; expected floating point numbers."
        )
    used = {key: tensor.detach().to("cpu", torch.float32).contiguous() for key, tensor in used.items()}
    _check_shapes(name, used)
    if THRESHOLD in used:
        used[THRESHOLD] = used[THRESHOLD].expand(len(used["b_enc"])).contiguous()
    check_finite(name, used)
    return used


def _check_shapes(name: str, weights: Mapping[str, Tensor]) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    W_enc, b_enc, W_dec, b_dec = (shapes[key] for key in WEIGHTS)
    if len(W_enc) == len(W_dec) == 2 and b_enc == (W_enc[1],) == (W_dec[0],) and b_dec == (W_dec[1],):
        check_same_space(name, W_enc[0], W_dec[1])
        gates = all(shapes.get(gate, b_enc) == b_enc for gate in GATES)
        if shapes.get(THRESHOLD, ()) in ((), (1,), b_enc) and gates and W_enc[0] * W_enc[1] > 0:
            return
    said = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
    raise TiltmeterError(
        f"The weights of {name} do not fit together: {said}; expected W_enc [d, latents], b_enc [latents], W_dec "
        "[latents, d], b_dec [d] and, where there are any, threshold, b_gate, r_mag, b_mag [latents]."
    )


def _activation(name: str, weights: Mapping[str, Tensor], k: int | None) -> tuple[str, Activation]:
    threshold, latents = weights.get(THRESHOLD), len(weights["b_enc"])
    kinds = {"a threshold": threshold is not None, f"k = {k}": k is not None, "gates": GATES[0] in weights}
    if len(several := [kind for kind, there in kinds.items() if there]) > 1:
        raise TiltmeterError(f"{name} has both {' and '.join(several)}; an SAE has at most one of them.")
    if GATES[0] in weights:
        return "gated", Gated(*(weights[gate] for gate in GATES))
    if threshold is not None:
        return "jumprelu", JumpReLU(threshold)
    if k is None:
        return "standard", torch.relu
    if not 1 <= k <= latents:
        raise TiltmeterError(f"{name} has k = {k}, but {latents} latents; give a k from 1 to {latents}.")
    return "topk", TopK(k)
