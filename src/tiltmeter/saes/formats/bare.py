"""Files of weights alone. What their names do not tell must come from the file's metadata or from the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats import openai
from tiltmeter.saes.formats.decoders import Choice, crosscoder, is_transcoder, rows_of, transcoder
from tiltmeter.saes.formats.linear import GATES, THRESHOLD, Convention, Facts, linear_sae
from tiltmeter.saes.formats.lm_saes import LOG_THRESHOLD
from tiltmeter.saes.formats.names import canonical, scheme_of
from tiltmeter.saes.formats.options import FIELDS, Options, options_of, refuse_options
from tiltmeter.saes.formats.tensors import Stored
from tiltmeter.saes.sae import LinearSAE


class Known(NamedTuple):
    """What a scheme of names, or a publication, tells of its SAEs."""

    subtracts: bool | None = None
    """Whether b_dec is subtracted from the input."""
    activation: str | None = None
    hook_name: str | None = None
    k: int | None = None


SCHEMES: Mapping[str, Known] = {
    "encoder.weight, bias": Known(True, "relu"),
    "encoder.weight, gate_bias": Known(True),
    "W_enc, gate_bias": Known(True),
    "encoder.weight, b_dec": Known(True),
    "encoder.weight, W_dec": Known(True, "topk"),
    "encoder_linear.weight": Known(False, "relu"),
    "w_enc": Known(False),
}
"""Of the schemes that one library alone writes: dictionary_learning, SAEBench, sparsify, Goodfire, Gemma Scope 2."""

_R1 = re.compile(r"DeepSeek-R1-Distill-Llama-8B-SAE-l(?P<layer>\d+)\.pt")
_GOODFIRE = re.compile(r"Llama-3\.\d-\d+B-Instruct-SAE-l(?P<layer>\d+)\.pth?")
_QWEN = re.compile(r"layer(?P<layer>\d+)\.sae\.pt")
_QWEN_K = re.compile(r"SAE-Res-[^/]*-L0_(\d+)/")


def load_bare(path: Path, stored: Stored, name: str, options: Options) -> LinearSAE | Dictionary:
    """Build an SAE, or the dictionary of a transcoder, from what the file of weights at `path` holds.

    Raises:
        TiltmeterError: it is none of a known format, or whether b_dec is subtracted, the activation or k is not known.
    """
    if (found := _transcoder(stored, name, options)) is not None:
        return found
    scheme = scheme_of(name, stored.tensors)
    if LOG_THRESHOLD in stored.tensors:
        raise TiltmeterError(f"{name} has {LOG_THRESHOLD}, which its configuration explains; give the folder with it.")
    if scheme == openai.SCHEME:
        refuse_options(name, options)
        return openai.load_openai(stored, name)
    weights = canonical(name, stored.tensors, scheme)
    known, said = _known(path, scheme), _said(name, options, stored)
    if said.hook_name is None and _lies_as_circuit_tracer(stored, scheme):
        raise TiltmeterError(
            f"Both matrices of {name} are [latents, d], as circuit-tracer stores transcoders; say what it writes if it "
            "is one, as in ?hook_name_out=blocks.5.hook_mlp_out, and hook_name if it is an SAE."
        )
    if GATES[0] in weights:
        activation: str | None = "gated"
    else:
        activation = said.activation or known.activation or _implied(name, said, stored, THRESHOLD in weights)
    subtracts = known.subtracts if said.apply_b_dec_to_input is None else said.apply_b_dec_to_input
    k = next((one for one in (said.k, known.k, _stored_k(stored)) if one is not None), None)
    _refuse_unknown(name, {"apply_b_dec_to_input": subtracts, "activation": activation})
    if activation == "topk":
        _refuse_unknown(name, {"k": k})
    if activation == "jumprelu" and THRESHOLD not in weights:
        if THRESHOLD not in stored.tensors:
            raise TiltmeterError(f"{name} has no {THRESHOLD}, so it is no jumprelu SAE.")
        weights[THRESHOLD] = stored.tensors[THRESHOLD]
    if activation == "jumprelu":
        _refuse_unset(name, weights[THRESHOLD])
    if activation in ("topk", "relu"):
        weights.pop(THRESHOLD, None)
    convention = Convention(bool(subtracts), k if activation == "topk" else None, said.normalize_activations or "none")
    return linear_sae(name, weights, convention, _facts(stored, said.hook_name or known.hook_name))


def load_bare_crosscoder(stored: Stored, name: str, choice: Choice, options: Options) -> Dictionary:
    """Build the dictionary of one layer or model of a crosscoder.

    Raises:
        TiltmeterError: which one is wanted is not said; it is none of a known format.
    """
    said = _said(name, options, stored)
    return crosscoder(name, stored.tensors, choice, _facts(stored, said.hook_name_out or said.hook_name))


def _transcoder(stored: Stored, name: str, options: Options) -> Dictionary | None:
    """The dictionary of a transcoder; None where nothing shows that it is one."""
    reads, writes = (getattr(options, key) or stored.settings.get(key) for key in ("hook_name", "hook_name_out"))
    if writes in (None, reads) and not is_transcoder(stored.tensors):
        return None
    return transcoder(name, rows_of(name, stored.tensors), reads, _facts(stored, writes))


def _lies_as_circuit_tracer(stored: Stored, scheme: str) -> bool:
    latents = len(stored.tensors["b_enc"]) if scheme == "W_enc" and "b_enc" in stored.tensors else 0
    shapes = {tuple(stored.tensors[key].shape) for key in ("W_enc", "W_dec")} if latents else set()
    return len(shapes) == 1 and next(iter(shapes))[0] == latents != next(iter(shapes))[-1]


def _facts(stored: Stored, hook_name: str | None) -> Facts:
    model = stored.settings.get("model_name")
    return Facts(hook_name=hook_name, model=model if isinstance(model, str) else None)


def _implied(name: str, said: Options, stored: Stored, has_threshold: bool) -> str | None:
    """The activation that a k or a threshold implies; libraries that store both use the threshold."""
    if has_threshold and said.k is not None:
        raise TiltmeterError(f"{name} has both a threshold and a k; say which is used: activation=topk or jumprelu.")
    if has_threshold:
        return "jumprelu"
    return None if said.k is None and _stored_k(stored) is None else "topk"


def _known(path: Path, scheme: str) -> Known:
    """What the names of the weights and of the file tell."""
    if match := _R1.fullmatch(path.name):
        return Known(False, "relu", f"blocks.{match['layer']}.hook_resid_post")
    if match := _GOODFIRE.fullmatch(path.name):
        return Known(False, "relu", f"blocks.{match['layer']}.hook_resid_post")
    if match := _QWEN.fullmatch(path.name):
        counts = _QWEN_K.findall(path.absolute().as_posix())  # of the folder, or the repository in the hub's cache
        return Known(False, "topk", f"blocks.{match['layer']}.hook_resid_post", int(counts[-1]) if counts else None)
    return SCHEMES.get(scheme, Known())


def _said(name: str, options: Options, stored: Stored) -> Options:
    """What the user says, and where not, what the file's metadata say."""
    file = options_of(name, {key: stored.settings[key] for key in FIELDS if key in stored.settings})
    return replace(file, **{key: value for key in FIELDS if (value := getattr(options, key)) is not None})


def _refuse_unset(name: str, threshold: Tensor) -> None:
    if threshold.numel() == 1 and float(threshold) < 0:
        raise TiltmeterError(
            f"{name} has the threshold {float(threshold):g} for all latents, which was not set yet: top-k SAEs get it "
            "late in their training; give a later checkpoint, or say activation=topk and k."
        )


def _stored_k(stored: Stored) -> int | None:
    return int(stored.tensors["k"]) if "k" in stored.tensors and stored.tensors["k"].numel() == 1 else None


def _refuse_unknown(name: str, found: Mapping[str, object]) -> None:
    if unknown := [key for key, value in found.items() if value is None]:
        example = {"apply_b_dec_to_input": "true", "activation": "relu", "k": "32"}
        mark = "&" if "?" in name else "?"
        said = mark + "&".join(f"{key}={example[key]}" for key in unknown)
        raise TiltmeterError(
            f"{name} does not say {' and '.join(unknown)}, which its weights alone do not tell: give the folder with "
            f"its configuration, or say it, as in {name}{said}."
        )
