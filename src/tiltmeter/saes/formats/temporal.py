"""Temporal SAEs (Lubana et al. 2025): `conf.yaml` and `latest_ckpt.safetensors`, in a folder below one of the layer's.

Their latents depend on the tokens before, so only the decoder rows D [latent, d] are read.
"""

from __future__ import annotations

import re
from pathlib import Path

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.decoders import dictionary
from tiltmeter.saes.formats.linear import Facts
from tiltmeter.saes.formats.saelens_config import OTHER_LATENTS
from tiltmeter.saes.formats.tensors import read_tensors

CONFIG, FILE = "conf.yaml", "latest_ckpt.safetensors"

_LAYER = re.compile(r"/layer_(\d+)(?=/|$)")


def is_temporal(folder: Path) -> bool:
    """Whether a folder holds a temporal SAE."""
    return (folder / CONFIG).is_file() and (folder / FILE).is_file()


def load_temporal(folder: Path, name: str) -> Dictionary:
    """Load the decoder rows.

    Raises:
        TiltmeterError: there are none of the width of the bias.
    """
    tensors = read_tensors(folder / FILE, name).tensors
    rows, bias = tensors.get("D"), tensors.get("b")
    if rows is None or bias is None or rows.shape[-1:] != bias.shape[-1:]:
        shapes = [None if one is None else [*one.shape] for one in (rows, bias)]
        raise TiltmeterError(
            f"{name} has D {shapes[0]} and b {shapes[1]}; expected the decoder [latents, d] and the bias [d] of a "
            "temporal SAE."
        )
    layers = _LAYER.findall(folder.absolute().as_posix())
    facts = Facts(hook_name=f"blocks.{layers[-1]}.hook_resid_post" if layers else None, processing="raw")
    return dictionary(name, "temporal", OTHER_LATENTS["temporal"], rows, facts)
