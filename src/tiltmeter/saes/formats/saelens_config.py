"""SAELens's configuration of an SAE (`cfg.json`): whether tiltmeter supports it, and its metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import Facts
from tiltmeter.saes.sae import Processing

ARCHITECTURES = ("standard", "gated", "topk", "jumprelu")
"""Supported architectures. Batch-top-k and matryoshka SAEs are saved as JumpReLU SAEs after training."""

UNFINISHED = ("batchtopk", "matryoshka_batchtopk")
"""Architectures that only training checkpoints have; their finished form is `jumprelu`."""

_OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
"""Keys of versions before 6 that were renamed."""

TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
"""Architectures whose output is another activation than their input."""

OTHER_LATENTS: Mapping[str, str] = {
    "temporal": "an SAE whose latents depend on the tokens before",
    "matching_pursuit": "an SAE whose encoder is an iterative search",
    "abstopk": "an SAE whose latents can be negative",
}
"""Architectures of which only the decoder is used, and what they are."""


def is_transcoder(config: Mapping[str, Any]) -> bool:
    """Whether the configuration is of a transcoder."""
    metadata, d_in = metadata_of(config), config.get("d_in")
    out = metadata.get("hook_name_out")
    elsewhere = bool(out) and out != metadata.get("hook_name")
    return config.get("architecture") in TRANSCODERS or elsewhere or (config.get("d_out") or d_in) != d_in


def check_kind(name: str, config: Mapping[str, Any]) -> None:
    """Check that this is an SAE or another dictionary of a supported architecture, of whole activations.

    Raises:
        TiltmeterError: it is not; the reason is given.
    """
    architecture = str(config.get("architecture", "standard"))
    if architecture not in (*ARCHITECTURES, *UNFINISHED, *TRANSCODERS, *OTHER_LATENTS):
        raise TiltmeterError(
            f"{name} is a {architecture}, which tiltmeter does not support; give one of {', '.join(ARCHITECTURES)}, "
            f"or, for their decoder rows, of {', '.join((*TRANSCODERS, *OTHER_LATENTS))}."
        )
    _check_whole(name, config)


def check_target(name: str, config: Mapping[str, Any]) -> None:
    """Check that this reconstructs what it reads, whatever its architecture.

    Raises:
        TiltmeterError: it does not, or it reads a single head.
    """
    if is_transcoder(config):
        raise TiltmeterError(f"{name} is a transcoder: its output is not a reconstruction of its input; give an SAE.")
    _check_whole(name, config)


def _check_whole(name: str, config: Mapping[str, Any]) -> None:
    metadata = metadata_of(config)
    if metadata.get("hook_head_index") is not None:
        raise TiltmeterError(
            f"{name} reads only head {metadata['hook_head_index']} of {metadata.get('hook_name')}, and tiltmeter has "
            "no sites of single heads; give an SAE of all heads."
        )


def current_config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as version 6 writes it; earlier ones have their metadata among the other keys.

    Raises:
        TiltmeterError: an activation that SAELens no longer has.
    """
    found = {_OLD_NAMES.get(key, key): value for key, value in config.items()}
    found["architecture"] = str(found.get("architecture") or "standard")
    if isinstance(found.get("metadata"), Mapping):
        return found
    activation, options = found.get("activation_fn") or "relu", found.get("activation_fn_kwargs") or {}
    if activation == "topk" and isinstance(options, Mapping):
        found |= {"architecture": "topk", "k": options.get("k")}
    elif activation != "relu" or options:
        raise TiltmeterError(f"{name} has the activation {activation} ({options}); tiltmeter reads relu and topk.")
    if isinstance(found.get("normalize_activations"), bool):
        found["normalize_activations"] = "expected_average_only_in" if found["normalize_activations"] else "none"
    return found


def metadata_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata; before version 6 of SAELens they are among the other keys."""
    metadata = config.get("metadata")
    if isinstance(metadata, Mapping):
        return metadata
    return {"hook_name": config.get("hook_point"), **config}


def read_facts(metadata: Mapping[str, Any]) -> Facts:
    """Read the fields of `About` from the metadata; None for missing ones.

    `kind`, `l0` and `explained_variance` are tiltmeter's own keys, not SAELens's.
    """
    bos = metadata.get("prepend_bos")
    return Facts(
        kind=_text(metadata.get("kind")),
        hook_name=_text(metadata.get("hook_name")),
        model=_text(metadata.get("model_name")),
        processing=_processing(metadata),
        l0=number(metadata.get("l0")),
        explained_variance=number(metadata.get("explained_variance")),
        prepend_bos=bos if isinstance(bos, bool) else None,
    )


def written_facts(metadata: Mapping[str, Any]) -> Facts:
    """The same of a transcoder, whose site is the one that it writes to, never the one that it reads."""
    return read_facts(metadata) | Facts(hook_name=_text(metadata.get("hook_name_out")))


def number(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def _text(value: object) -> str | None:
    return str(value) if value else None


def _processing(metadata: Mapping[str, Any]) -> Processing | None:
    """How the model was processed that the SAE was trained on.

    SAELens loads models without processing, except for `model_from_pretrained_kwargs`; its trainer records these and
    the class of the model. Centring changes the stream and what is written to it, but not `hook_z`; folding value
    biases changes only `hook_z`.
    """
    options = metadata.get("model_from_pretrained_kwargs")
    if not isinstance(options, Mapping) or not (options or metadata.get("model_class_name")):
        return None
    if str(metadata.get("hook_name")).endswith("hook_z"):
        return "folded" if options.get("fold_value_biases") else "raw"
    return "centred" if options.get("center_writing_weights") else "raw"
