"""SAEs of four weights, W_enc, b_enc, W_dec and b_dec, in a `.safetensors` file or a torch module.

A threshold makes one a JumpReLU SAE, a k a top-k SAE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.hashes import weights_sha256
from tiltmeter.saes.sae import About, Activation, JumpReLU, LinearSAE, Processing, TopK, check_finite

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")
THRESHOLD = "threshold"


@dataclass(frozen=True)
class Convention:
    """How weights are used, which cannot be read from the weights. The defaults are SAELens's."""

    apply_b_dec_to_input: bool = True
    """Whether b_dec is subtracted from an activation before it is encoded."""
    k: int | None = None
    """Number of latents a top-k SAE keeps; None for other SAEs."""


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

    A `threshold` ([latent], or one number for all) makes it a JumpReLU SAE. It is in float32, without gradients.

    Raises:
        TiltmeterError: weights are missing, do not fit together or are not finite; k is out of range.
    """
    weights = _checked(name, weights)
    W_enc, b_enc, W_dec, b_dec = (weights[key] for key in WEIGHTS)
    architecture, activation = _activation(name, weights.get(THRESHOLD), convention.k, len(b_enc))
    settings = {"architecture": architecture, "k": convention.k, "input_bias": convention.apply_b_dec_to_input}
    return LinearSAE(
        About(name, architecture, fingerprint(weights, settings), **facts),
        W_enc,
        b_enc,
        W_dec,
        b_dec,
        input_bias=b_dec if convention.apply_b_dec_to_input else torch.zeros_like(b_dec),
        activation=activation,
    )


def fingerprint(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Hash of an SAE: its weights, and the settings that decide how they are used."""
    return weights_sha256([*weights.items(), (json.dumps(settings, sort_keys=True), torch.empty(0))])


def load_weights_file(path: Path, name: str) -> LinearSAE:
    """Load an SAE from a `.safetensors` file with W_enc, b_enc, W_dec, b_dec and optionally threshold.

    The file's metadata may have `hook_name`, `model_name`, `k` and `apply_b_dec_to_input` (`true`, the default, or
    `false`).

    Raises:
        TiltmeterError: the file is not safetensors, or not an SAE.
    """
    weights, metadata = read_safetensors(path, name)
    facts = Facts(hook_name=metadata.get("hook_name"), model=metadata.get("model_name"))
    return linear_sae(name, weights, _convention(name, metadata), facts)


def read_safetensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a file.

    Raises:
        TiltmeterError: it is missing, or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise TiltmeterError(
            f"{name} could not be read as safetensors: {reason}; give the weights of an SAE."
        ) from None


def from_module(
    module: torch.nn.Module,
    name: str,
    convention: Convention = Convention(),
    facts: Facts | None = None,
) -> LinearSAE:
    """Build an SAE from a torch module with parameters, buffers or attributes W_enc, b_enc, W_dec, b_dec (, threshold).

    The module's `encode` and `decode` are not used: `convention` says how its weights are used, and `facts` holds its
    metadata (`Facts(hook_name="blocks.6.hook_resid_pre")`). The weights are copied.

    Raises:
        TiltmeterError: weights are missing, do not fit together or are not finite.
    """
    found = {key: getattr(module, key, None) for key in (*WEIGHTS, THRESHOLD)}
    weights = {key: value.detach().clone() for key, value in found.items() if isinstance(value, Tensor)}
    return linear_sae(name, weights, convention, Facts() if facts is None else facts)


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


def _checked(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in float32 and contiguous, the threshold expanded to one number per latent."""
    if missing := [key for key in WEIGHTS if key not in weights]:
        has = ", ".join(sorted(weights)[:4]) + (", ..." if len(weights) > 4 else "")
        raise TiltmeterError(
            f"{name} is not an SAE: it has no {' and no '.join(missing)} (it has {has or 'nothing'}); expected "
            f"{', '.join(WEIGHTS)}."
        )
    used = {key: weights[key] for key in (*WEIGHTS, THRESHOLD) if key in weights}
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
        if shapes.get(THRESHOLD, ()) in ((), (1,), b_enc) and W_enc[0] * W_enc[1] > 0:
            return
    said = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
    raise TiltmeterError(
        f"The weights of {name} do not fit together: {said}; expected W_enc [d, latents], b_enc [latents], W_dec "
        "[latents, d], b_dec [d] and, where there is one, threshold [latents]."
    )


def _activation(name: str, threshold: Tensor | None, k: int | None, latents: int) -> tuple[str, Activation]:
    if threshold is not None and k is not None:
        raise TiltmeterError(
            f"{name} has both a threshold and k = {k}; an SAE has at most one of them: remove the other."
        )
    if threshold is not None:
        return "jumprelu", JumpReLU(threshold)
    if k is None:
        return "standard", torch.relu
    if not 1 <= k <= latents:
        raise TiltmeterError(f"{name} has k = {k}, but {latents} latents; give a k from 1 to {latents}.")
    return "topk", TopK(k)


def _convention(name: str, metadata: Mapping[str, str]) -> Convention:
    """Parse the convention from a safetensors file's metadata, which are strings."""
    subtract = metadata.get("apply_b_dec_to_input", "true").lower()
    k = metadata.get("k", "")
    if subtract not in ("true", "false") or not (k.isdecimal() or not k):
        raise TiltmeterError(
            f"The metadata of {name} have apply_b_dec_to_input = {subtract!r} and k = {k!r}; expected true or false, "
            "and a whole number or none."
        )
    return Convention(subtract == "true", int(k) if k else None)
