"""The files of Braun et al.'s training runs: `final_config.yaml` and `samples_N.pt`.

Braun et al. 2024, "Identifying Functionally Important Features with End-to-End Sparse Dictionary Learning". A `.pt` is
the state dict of SAEs by hook point, with `-` for `.`. The decoder's columns are stored unnormalised, and scaled to
unit length whenever it is used; nothing is subtracted before encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor
from torch.nn.functional import normalize

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.formats.tensors import read_tensors
from tiltmeter.saes.sae import LinearSAE

CONFIG = "final_config.yaml"

_SAMPLES = re.compile(r"samples_(\d+)\.pt")
_KEY = re.compile(r"(?P<hook>.+)\.(?P<part>encoder\.0\.weight|encoder\.0\.bias|decoder\.weight|decoder\.bias)")
_PARTS = 4


def final_file(folder: Path) -> Path | None:
    """The `samples_N.pt` with the largest N, or None."""
    last = last_samples(file.name for file in folder.iterdir())
    return folder / last if last else None


def last_samples(names: Iterable[str]) -> str | None:
    """Of the names `samples_N.pt` among these, that with the largest N, or None."""
    found = {int(match[1]): name for name in names if (match := _SAMPLES.fullmatch(name))}
    return found[max(found)] if found else None


def is_braun(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these tensors are named as Braun et al. name them."""
    return any(_KEY.fullmatch(key) for key in tensors)


def load_braun(path: Path, name: str, chosen: str = "") -> LinearSAE:
    """Load an SAE from a `.pt` file, or from the last one in a run's folder.

    Args:
        path: the file or folder.
        name: the name by which the user gave it.
        chosen: the hook point, if a file has SAEs at several.

    Raises:
        TiltmeterError: the file cannot be read without unpickling code, is not of this format, or has no SAE there.
    """
    file = final_file(path) if path.is_dir() else path
    if file is None:
        raise TiltmeterError(f"{name} has no samples_N.pt, as runs of Braun et al. write; give such a folder or file.")
    hook, parts = _choose(_by_hook(read_tensors(file, name).tensors, name), name, chosen)
    weights = {
        "W_enc": _transposed(parts["encoder.0.weight"]),
        "b_enc": parts["encoder.0.bias"],
        "W_dec": _transposed(normalize(parts["decoder.weight"].float(), dim=0)),
        "b_dec": parts["decoder.bias"],
    }
    # Their models are loaded with TransformerLens's default processing, and no boundary token is prepended to the data.
    found = _configuration(file.parent / CONFIG)
    facts = Facts(kind=_kind(found), hook_name=hook, model=_model(found), processing="centred", prepend_bos=False)
    return linear_sae(name, weights, Convention(apply_b_dec_to_input=False), facts)


def _by_hook(state: Mapping[Any, Any], name: str) -> dict[str, dict[str, Tensor]]:
    """The weights of each SAE, by its hook point."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if (match := _KEY.fullmatch(str(key))) and isinstance(value, Tensor):
            found.setdefault(match["hook"].replace("-", "."), {})[match["part"]] = value
    if not found or any(len(parts) < _PARTS for parts in found.values()):
        has = ", ".join(map(str, [*state][:3])) or "no weights"
        raise TiltmeterError(
            f"{name} is not an SAE of Braun et al.: expected HOOK.encoder.0.weight, .encoder.0.bias, .decoder.weight "
            f"and .decoder.bias, but it has {has}."
        )
    return found


def _choose(found: dict[str, dict[str, Tensor]], name: str, chosen: str) -> tuple[str, dict[str, Tensor]]:
    if not chosen and len(found) == 1:
        return next(iter(found.items()))
    if chosen in found:
        return chosen, found[chosen]
    problem = f"none at {chosen}" if chosen else "several"
    raise TiltmeterError(f"{name} has SAEs at {', '.join(sorted(found))}, {problem}; name one: FILE#{min(found)}.")


def _transposed(weight: Tensor) -> Tensor:
    return weight.T if weight.ndim == 2 else weight  # anything else is refused later, with its shape


def _configuration(file: Path) -> Mapping[str, Any]:
    """The run's configuration, if it is beside the weights; else empty."""
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise TiltmeterError(f"{file} could not be read as YAML: {reason}; repair or remove it.") from None
    return content if isinstance(content, dict) else {}


def _model(configuration: Mapping[str, Any]) -> str | None:
    name = configuration.get("tlens_model_name")
    return name if isinstance(name, str) else None


def _kind(configuration: Mapping[str, Any]) -> str | None:
    """An SAE's training objective, from the terms of its loss."""
    loss = configuration.get("loss")
    if not isinstance(loss, dict):
        return None
    kl = loss.get("logits_kl")
    if not isinstance(kl, dict) or not kl.get("coeff"):
        return "local"
    return "e2e+ds" if loss.get("in_to_orig") else "e2e"
