"""OpenMOSS's SAEs: Llama Scope (`hyperparams.json`), and what their library writes since (`config.json`).

Activations are scaled so that their mean norm over a data set is √d, and latents are compared with their threshold, or
with each other, after multiplication with the norm of their decoder row (He et al. 2024). Both are constants, which are
folded into the weights: a latent of 1 then adds a vector of length 1 to the reconstruction. Thresholds are compared in
the scaled space, as in OpenMOSS's library; SAELens multiplies those of Llama Scope by the scale once more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.decoders import Choice, chosen, dictionary, rows_of, transcoder
from tiltmeter.saes.formats.hook_names import transformer_lens_name
from tiltmeter.saes.formats.linear import THRESHOLD, Convention, Facts, linear_sae
from tiltmeter.saes.formats.names import canonical, scheme_of
from tiltmeter.saes.formats.tensors import read_json, read_tensors
from tiltmeter.saes.sae import LinearSAE

CONFIGS = ("hyperparams.json", "config.json")
NORM = "dataset_average_activation_norm."
"""Beginning of the names of stored mean norms; the site follows."""

LAYERS = ("hook_points", "hook_points_out")
"""Keys in the configuration of a crosscoder and of a cross-layer transcoder: the sites that they write to."""

LOG_THRESHOLD = "log_jumprelu_threshold"

OF_ACTIVATION = "activation_function."
"""What names of an activation's parameters begin with, since it is a module of its own."""

FILES = ("checkpoints/final.safetensors", "sae_weights.safetensors", "model.safetensors", "final.safetensors")


def files_of(folder: Path, key: str = "hook_point_in") -> tuple[Path, Path] | None:
    """The configuration and the weights in a folder; None if it is none of OpenMOSS's with this key."""
    for config in (folder / one for one in CONFIGS):
        weights = next((folder / file for file in FILES if (folder / file).is_file()), None)
        if config.is_file() and weights and key in read_json(config, str(folder)):
            return config, weights
    return None


def load_lm_saes(config_file: Path, file: Path, name: str) -> LinearSAE | Dictionary:
    """Load an SAE, or the decoder rows of a transcoder.

    Raises:
        TiltmeterError: its activation or its scale is not known, or it is damaged.
    """
    config, tensors = read_json(config_file, name), read_tensors(file, name).tensors
    hook, out = config["hook_point_in"], config.get("hook_point_out")
    tensors = {key.removeprefix(OF_ACTIVATION): tensor.float() for key, tensor in tensors.items()}
    norms = {key: tensors.pop(key) for key in [*tensors] if key.startswith(NORM)}
    if out not in (None, hook):
        facts = Facts(hook_name=transformer_lens_name(str(out)), model=_model(config), processing="raw")
        return transcoder(name, rows_of(name, tensors), str(hook), facts)
    weights = canonical(name, tensors, scheme_of(name, tensors))
    scale = _scale(name, config, {key.removeprefix(NORM): float(value) for key, value in norms.items()})
    threshold, k = _activation(name, config, tensors)
    rows = weights["W_dec"].norm(dim=-1)
    if not config.get("sparsity_include_decoder_norm", True):
        rows = torch.ones_like(rows)
    folded = {
        "W_enc": weights["W_enc"] * rows,
        "b_enc": weights["b_enc"] * rows / scale,
        "W_dec": weights["W_dec"] / rows[:, None],
        "b_dec": weights["b_dec"] / scale,
    }
    if threshold is not None:
        folded[THRESHOLD] = threshold / scale
    convention = Convention(bool(config.get("apply_decoder_bias_to_pre_encoder", False)), k)
    facts = Facts(hook_name=transformer_lens_name(str(hook)), model=_model(config), processing="raw")
    return linear_sae(name, folded, convention, facts)


def writes_to_several(folder: Path) -> bool:
    """Whether a folder holds one of OpenMOSS's crosscoders or cross-layer transcoders."""
    return _layered(folder) is not None


def _layered(folder: Path) -> tuple[str, Path, Path] | None:
    """The key that lists its sites, its configuration and its weights."""
    return next(((key, *found) for key in LAYERS if (found := files_of(folder, key))), None)


def load_layers(folder: Path, name: str, choice: Choice) -> Dictionary:
    """Load the decoder rows of a crosscoder or a cross-layer transcoder at one of its sites.

    A crosscoder's W_D is [site, latent, d]. A cross-layer transcoder's W_D.N is [source, latent, d]: what the latents
    of each source up to N write to N.

    Raises:
        TiltmeterError: which site is wanted is not known; it is damaged.
    """
    found = _layered(folder)
    assert found is not None
    key, config_file, file = found
    config, tensors = read_json(config_file, name), read_tensors(file, name).tensors
    hooks = [str(hook) for hook in config[key]]
    place = chosen(name, hooks, choice)
    cross = key == LAYERS[1]
    rows = tensors.get(f"W_D.{place}" if cross else "W_D")
    if rows is None or rows.ndim != 3 or len(rows) != (place + 1 if cross else len(hooks)):
        shape = "missing" if rows is None else list(rows.shape)
        raise TiltmeterError(
            f"W_D of {name} is {shape}, which does not fit the {len(hooks)} sites of {config_file.name}."
        )
    facts = Facts(hook_name=transformer_lens_name(hooks[place]), model=_model(config), processing="raw")
    if cross:
        what = f"a cross-layer transcoder, whose latents are computed from the {place + 1} sites up to {hooks[place]}"
        return dictionary(name, "cross_layer_transcoder", what, rows.flatten(0, 1), facts)
    what = f"a crosscoder, whose latents are computed from {len(hooks)} sites"
    return dictionary(name, "crosscoder", what, rows[place], facts)


def _scale(name: str, config: Mapping[str, Any], stored: Mapping[str, float]) -> float:
    """The factor by which activations are multiplied: √d over their mean norm."""
    kind = config.get("norm_activation", "inference")
    if kind in ("inference", "none"):
        return 1.0
    average = config.get("dataset_average_activation_norm")
    found = average.get("in") if isinstance(average, Mapping) else stored.get(str(config["hook_point_in"]))
    if kind != "dataset-wise" or not isinstance(found, (int, float)) or not found > 0:
        raise TiltmeterError(
            f"{name} scales activations {kind!r}, with the mean norm {found!r}; tiltmeter reads dataset-wise scales "
            "whose norm is stored, and SAEs without one."
        )
    return math.sqrt(int(config["d_model"])) / found


def _activation(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Tensor | None, int | None]:
    """The threshold and the k; at most one of them."""
    kind = str(config.get("act_fn", "relu")).lower()
    if kind == "relu":
        return None, None
    if kind == "topk" and isinstance(k := config.get("top_k"), int):
        return None, k
    if kind == "jumprelu" and LOG_THRESHOLD in tensors:
        return tensors[LOG_THRESHOLD].exp(), None
    if kind == "jumprelu" and isinstance(threshold := config.get("jump_relu_threshold"), (int, float)):
        return torch.tensor(float(threshold)), None
    raise TiltmeterError(
        f"{name} has the activation {kind!r}, and no threshold or k for it; tiltmeter reads relu, topk and jumprelu."
    )


def _model(config: Mapping[str, Any]) -> str | None:
    return next((str(config[key]) for key in ("model_name", "model") if isinstance(config.get(key), str)), None)
