"""What the formats call the weights of an SAE, and how they lay them out.

Every format holds an encoder's matrix and bias, a decoder's and, for some SAEs, thresholds or gates. A scheme maps its
names to ours. Which way a matrix lies follows from the lengths of the biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import GATES, WEIGHTS

TRANSCODER = frozenset({"W_skip", "affine_skip_connection", "b_dec_out"})
"""Weights that only transcoders have."""


@dataclass(frozen=True)
class Scheme:
    """The names that one format gives to weights."""

    names: Mapping[str, str]
    """Its name for each of ours."""
    as_linear: bool = False
    """Whether matrices lie as in `nn.Linear`: [outputs, inputs]. It decides where both sides are equally wide."""
    ignored: frozenset[str] = field(default_factory=frozenset)
    """What it stores beside them that changes no output."""


def _same(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


SCHEMES: Mapping[str, Scheme] = {
    "W_enc": Scheme(
        _same("W_enc b_enc W_dec b_dec threshold b_gate r_mag b_mag"),
        ignored=frozenset({"k", "group_sizes", "num_batches_not_active", "log_sparsity"}),
    ),
    "w_enc": Scheme({"W_enc": "w_enc", "b_enc": "b_enc", "W_dec": "w_dec", "b_dec": "b_dec", "threshold": "threshold"}),
    "W_e": Scheme({"W_enc": "W_e", "b_enc": "b_e", "W_dec": "W_d", "b_dec": "b_d"}),
    "W_E": Scheme(
        {"W_enc": "W_E", "b_enc": "b_E", "W_dec": "W_D", "b_dec": "b_D"}, ignored=frozenset({"log_jumprelu_threshold"})
    ),
    "encoder.weight, W_dec": Scheme(
        {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
    ),
    "encoder.weight, bias": Scheme(
        {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight", "b_dec": "bias"}, as_linear=True
    ),
    "encoder.weight, b_dec": Scheme(
        {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight", "b_dec": "b_dec"},
        as_linear=True,
        ignored=frozenset({"k", "threshold"}),
    ),
    "encoder.weight, decoder.bias": Scheme(
        {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight", "b_dec": "decoder.bias"},
        as_linear=True,
        ignored=frozenset({"log_jumprelu_threshold"}),
    ),
    "encoder_linear.weight": Scheme(
        {
            "W_enc": "encoder_linear.weight",
            "b_enc": "encoder_linear.bias",
            "W_dec": "decoder_linear.weight",
            "b_dec": "decoder_linear.bias",
        },
        as_linear=True,
    ),
    "encoder.weight, gate_bias": Scheme(
        {
            "W_enc": "encoder.weight",
            "W_dec": "decoder.weight",
            "b_dec": "decoder_bias",
            "b_gate": "gate_bias",
            "r_mag": "r_mag",
            "b_mag": "mag_bias",
        },
        as_linear=True,
    ),
    "W_enc, gate_bias": Scheme(_same("W_enc W_dec b_dec r_mag b_mag") | {"b_gate": "gate_bias"}),
    "latent_bias, pre_bias": Scheme(
        {"W_enc": "encoder.weight", "b_enc": "latent_bias", "W_dec": "decoder.weight", "b_dec": "pre_bias"},
        as_linear=True,
        ignored=frozenset({"stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"}),
    ),
}
"""By what tells them apart: SAELens and Gemma Scope; Gemma Scope 2; Anthropic's papers; llamascopium; sparsify;
dictionary_learning's AutoEncoder, its top-k ones, and its AutoEncoderNew (also DeepSeek-R1's, and Llama Scope's);
Goodfire; dictionary_learning's gated, and SAEBench's; OpenAI."""


def scheme_of(name: str, tensors: Mapping[str, Tensor]) -> str:
    """The scheme whose matrices and last bias these tensors have.

    Raises:
        TiltmeterError: there is none.
    """
    for scheme, one in SCHEMES.items():
        biases = {one.names.get(key) for key in ("b_enc", "b_gate")}
        if {one.names[key] for key in ("W_enc", "W_dec", "b_dec")} <= tensors.keys() and biases & tensors.keys():
            return scheme
    has = ", ".join(sorted(tensors)[:6]) + (", ..." if len(tensors) > 6 else "")
    raise TiltmeterError(
        f"{name} is not an SAE of a known format: it has {has or 'no tensors'}; expected {', '.join(WEIGHTS)}, or the "
        "names of another format (docs/saes.md)."
    )


def canonical(name: str, tensors: Mapping[str, Tensor], scheme: str) -> dict[str, Tensor]:
    """The weights by our names, W_enc [d, latent] and W_dec [latent, d].

    Raises:
        TiltmeterError: there are others, which might change the output.
    """
    one = SCHEMES[scheme]
    if strangers := sorted(tensors.keys() - {*one.names.values()} - one.ignored):
        raise TiltmeterError(
            f"{name} has {strangers[0]}, and what it does to the output is not known; give the file with its "
            "configuration beside it, or without this tensor if it does nothing."
        )
    weights = {key: tensors[theirs] for key, theirs in one.names.items() if theirs in tensors}
    latent_bias = "b_enc" if "b_enc" in weights else GATES[0]
    d, latents = (len(weights[key]) if weights[key].ndim == 1 else -1 for key in ("b_dec", latent_bias))
    for key, shape in {"W_enc": (d, latents), "W_dec": (latents, d)}.items():
        lies_across = weights[key].shape == shape[::-1] and (d != latents or one.as_linear)
        weights[key] = weights[key].T if lies_across else weights[key]
    return weights
