"""The encoders of transcoders, where a file says what the transcoder reads and how its latents are computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.mlp_input import MLPInput
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.hook_names import layer_of
from tiltmeter.saes.formats.linear import fingerprint
from tiltmeter.saes.sae import JumpReLU, TopK, check_finite
from tiltmeter.saes.transcoder import Transcoder

_INPUTS: Mapping[str, MLPInput] = {
    "ln2.hook_normalized": "ln2.hook_normalized",
    "mlp.hook_in": "mlp.hook_in",
    "hook_resid_mid": "hook_resid_mid",
}
"""TransformerLens's names without the block. `hook_mlp_in` is left out: in TransformerLens it is the stream before the
norm, and in SAELens also what files of the MLP's input are said to read."""

_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")


class Encoder(NamedTuple):
    """How latents are computed: u W_enc + b_enc, then ReLU, the k largest, or a threshold."""

    reads: MLPInput
    W_enc: Tensor
    """[d_in, latent]"""
    b_enc: Tensor
    b_dec: Tensor
    """What is added to the output, not what is subtracted from the input."""
    k: int | None = None
    threshold: Tensor | None = None
    W_skip: Tensor | None = None
    """[d_in, d_out]"""


def mlp_input(reads: object, writes: object) -> MLPInput | None:
    """Which activation before the MLP a hook is, if it and the one that is written to are of one block; else None."""
    match = _HOOK.fullmatch(str(reads))
    if match is None or writes is None or layer_of(str(writes)) != int(match[1]):
        return None
    return _INPUTS.get(match[2])


def with_encoder(found: Dictionary, encoder: Encoder) -> Transcoder:
    """Add an encoder to a transcoder's decoder rows, in float32.

    Raises:
        TiltmeterError: the weights do not fit together or are not finite, or k is out of range.
    """
    name, latents, d_out = found.about.name, *found.decoder.shape
    weights = {
        key: tensor.detach().to("cpu").float().contiguous()
        for key, tensor in encoder._asdict().items()
        if isinstance(tensor, Tensor)
    }
    d_in = weights["W_enc"].shape[0]
    expected = {"W_enc": (d_in, latents), "b_enc": (latents,), "b_dec": (d_out,), "W_skip": (d_in, d_out)}
    expected |= {"threshold": (latents,)}
    wrong = {key: [*one.shape] for key, one in weights.items() if tuple(one.shape) != expected[key]}
    if wrong or (encoder.k is not None and not 1 <= encoder.k <= latents):
        said = ", ".join(f"{key} {shape}" for key, shape in wrong.items()) or f"k = {encoder.k}"
        raise TiltmeterError(
            f"The weights of the transcoder {name} do not fit together: {said}, with a decoder [{latents}, {d_out}]."
        )
    check_finite(name, weights)
    threshold = weights.get("threshold")
    activation = TopK(encoder.k) if encoder.k else torch.relu if threshold is None else JumpReLU(threshold)
    settings = {"k": encoder.k, "reads": encoder.reads, "hook_name": found.about.hook_name}
    sha256 = fingerprint({**weights, "W_dec": found.decoder}, settings)
    return Transcoder(
        replace(found.about, sha256=sha256),
        found.decoder,
        found.what,
        W_enc=weights["W_enc"],
        b_enc=weights["b_enc"],
        b_dec=weights["b_dec"],
        activation=activation,
        reads=encoder.reads,
        W_skip=weights.get("W_skip"),
    )
