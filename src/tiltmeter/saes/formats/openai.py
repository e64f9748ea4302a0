"""OpenAI's files (`openai/sparse_autoencoder`, Gao et al. 2024): version 1 with ReLU, version 5 with top-k.

The pre-bias is subtracted from the input and added to the output. Where the activation is top-k, each token is
normalised first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.formats.names import canonical
from tiltmeter.saes.formats.tensors import Stored
from tiltmeter.saes.sae import LinearSAE

SCHEME = "latent_bias, pre_bias"


def load_openai(stored: Stored, name: str) -> LinearSAE:
    """Build the SAE of a file.

    Raises:
        TiltmeterError: its activation is neither ReLU nor top-k of ReLU, or it has no k.
    """
    activation = str(stored.settings.get("activation", "ReLU"))
    if activation not in ("ReLU", "TopK"):
        raise TiltmeterError(f"{name} has the activation {activation}; tiltmeter reads OpenAI's ReLU and TopK SAEs.")
    weights = canonical(name, stored.tensors, SCHEME)
    if activation == "ReLU":
        return linear_sae(name, weights, Convention(), Facts(processing="raw"))
    state: Any = stored.settings.get("activation_state_dict", {})
    k = state.get("k") if isinstance(state, Mapping) else None
    if isinstance(k, int) and (then := state.get("postact_fn", "ReLU")) != "ReLU":
        raise TiltmeterError(f"{name} applies {then} to the kept latents, which can be negative; give one with ReLU.")
    if not isinstance(k, int):
        raise TiltmeterError(f"{name} is a top-k SAE without k; give the file as OpenAI published it.")
    return linear_sae(name, weights, Convention(k=k, normalisation="layer_norm"), Facts(kind="topk", processing="raw"))
