"""The files of a model: where they are, and which of them would give another model than their user means."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import cached_file

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.accepted import MERGE
from tiltmeter.models.failures import first_line
from tiltmeter.runs.user_paths import user_path

GGUF = ".gguf"
"""Ending of files with quantised weights, as llama.cpp reads them."""

EMBEDDED: Mapping[str, Path] = {"nano": Path(__file__).parent / "nano"}
"""Models that ship with tiltmeter, by name."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""Names that a model on the Hugging Face hub can have."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.*", "adapters.safetensors", "*lora*.safetensors")
"""Files of adapters (PEFT, MLX, diffusers), which change a model without being in its weights."""

ADAPTER_WEIGHTS = re.compile(r"(^|[._])(lora|ia3|adapters?|base_layer|vera|loha|lokr|oft|prompt_encoder)([._]|$)", re.I)
"""Names of an adapter's weights among those of a model."""

QUANTISED = re.compile(
    r"(scales?|scale_inv|scale_weight|weight_s|SCB|weight_format|zero_?points?|qzeros|qweight|g_idx|absmax|quant_state)(\.|$)",
    re.I,
)
"""Ends of names of what quantised weights are multiplied with."""

WEIGHT_TYPES = frozenset({"F64", "F32", "F16", "BF16"})
"""Types, as safetensors names them, whose numbers are weights as they stand."""

_log = logging.getLogger(__name__)


def locate(name: str) -> str:
    """The directory or hub id that `name` stands for."""
    if name in EMBEDDED:
        return str(EMBEDDED[name])
    path = user_path(name)
    if path.is_file() and path.suffix.lower() == GGUF:
        _refuse_without_gguf(name)
        return str(path)
    if path.is_file():
        raise TiltmeterError(
            f"{name} is a file; give a .gguf file, or the directory of a Hugging Face model, with its config.json."
        )
    if not path.is_dir():
        if not HUB_NAME.fullmatch(name):
            raise TiltmeterError(
                f"There is no model {name!r}: expected {', '.join(EMBEDDED)}, an existing directory, or OWNER/NAME of "
                "the Hugging Face hub."
            )
        return name
    if adapters := sorted(file.name for pattern in ADAPTER_FILES for file in path.glob(pattern)):
        raise adapter_beside(name, adapters[0])
    if not (path / "config.json").is_file():
        raise TiltmeterError(f"{name} has no config.json; give the directory of a Hugging Face model.")
    if not any(path.glob("*.safetensors")):
        pickles = [file.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in path.glob(kind)]
        if pickles:
            raise TiltmeterError(
                f"{name} has its weights in {pickles[0]}, a pickle, which can run any code when read; convert it to "
                "safetensors first."
            )
        raise TiltmeterError(f"{name} has no weights: no .safetensors file lies beside its config.json.")
    for index in path.glob("*.safetensors.index.json"):
        _refuse_pickled_shards(index)
    return str(path)


def directory_and_file(where: str) -> tuple[str, dict[str, str]]:
    """Where transformers looks, and which GGUF file it reads there, if it is one."""
    path = Path(where)
    return (
        (str(path.parent), {"gguf_file": path.name}) if path.suffix.lower() == GGUF and path.is_file() else (where, {})
    )


def _refuse_without_gguf(name: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise TiltmeterError(f"{name} is a GGUF file; the 'gguf' package is needed: pip install 'tiltmeter[gguf]'.")


def refuse_unread_gguf(name: str, hf: PreTrainedModel) -> None:
    """Refuse what transformers leaves out of a GGUF file: scaled rotary frequencies, and biases it has no place for.

    Raises:
        TiltmeterError: the file has one of them.
    """
    import gguf

    reader = gguf.GGUFReader(user_path(name))
    tensors = [tensor.name for tensor in reader.tensors]
    scaled = [key for key, field in reader.fields.items() if key.endswith(".rope.scaling.type")]
    unread = [key for key in scaled if reader.fields[key].contents() != "none"]
    unread += [one for one in tensors if one.startswith("rope_")]
    if not any(key.endswith(".bias") for key, _ in hf.named_parameters()):
        unread += [one for one in tensors if one.endswith(".bias")]
    if unread:
        raise TiltmeterError(
            f"{name} has {unread[0]}, which transformers does not read from GGUF files, so another model would be "
            "measured; give the model's safetensors."
        )


def adapter_beside(name: str, file: str) -> TiltmeterError:
    """The sentence about an adapter that would not be applied."""
    return TiltmeterError(
        f"{name} has an adapter ({file}), which would not be applied: load it with PEFT, {MERGE}, or save that model "
        "in a directory of its own; to measure the base model alone, give a directory without the adapter."
    )


def _refuse_pickled_shards(index: Path) -> None:
    """An index of safetensors weights may name any file, and transformers would unpickle it."""
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TiltmeterError(f"{index} is not an index of weights: {first_line(error)}") from None
    if strangers := [file for file in files if not str(file).endswith(".safetensors")]:
        raise TiltmeterError(
            f"{index} names weights in {strangers[0]}, which may be a pickle; convert them to safetensors first."
        )


def refuse_unscaled(name: str, where: str, revision: str | None, hf: nn.Module) -> None:
    """Refuse weights that are stored as integers or in 8 bits or less: nothing says what to multiply them with.

    Raises:
        TiltmeterError: there are such weights.
    """
    wanted = {key for key, _ in hf.named_parameters()}
    for file in _weight_files(where, revision):
        with safe_open(file, framework="pt") as tensors:
            for key in list(tensors.keys()):
                kind = tensors.get_slice(key).get_dtype()
                if kind in WEIGHT_TYPES:
                    continue
                if key in wanted or key.endswith(".weight") or any(one.endswith(f".{key}") for one in wanted):
                    raise TiltmeterError(
                        f"{name} has {key} in {kind}, and its config.json has no quantization_config that says what "
                        "it is multiplied with; give weights in bfloat16, float16 or float32."
                    )


def _weight_files(where: str, revision: str | None) -> list[str]:
    """The safetensors files that transformers reads, in a directory or in the cache of the hub."""

    def files(*names: str) -> list[str]:
        asked = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
        found = [cached_file(where, name, **asked) for name in names]
        return [file for file in found if file is not None]

    whole, index = files("model.safetensors"), files("model.safetensors.index.json")
    if whole or not index:
        return whole
    return files(*sorted(set(json.loads(Path(index[0]).read_text(encoding="utf-8"))["weight_map"].values())))


def refuse_revision(name: str, where: str, revision: str | None) -> None:
    """Refuse a revision of what is not on the hub.

    Raises:
        TiltmeterError: it was given for a directory.
    """
    if revision is not None and Path(where).is_dir():
        raise TiltmeterError(
            f"The revision {revision!r} was asked for but {name!r} is not a model on the hub: leave it out."
        )


def check_complete(name: str, loading: Mapping[str, Any]) -> None:
    """Refuse weights that do not fill the model, since transformers would draw the rest; and weights of adapters."""
    for problem in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading.get(problem) or ())):
            raise TiltmeterError(
                f"The weights of {name} do not fit its configuration: {len(keys)} {problem.replace('_', ' ')}, first "
                f"{keys[0]}; check that config.json belongs to these weights."
            )
    unused = sorted(map(str, loading.get("unexpected_keys") or ()))
    if adapters := [key for key in unused if ADAPTER_WEIGHTS.search(key)]:
        raise adapter_beside(name, f"{adapters[0]} among the weights")
    if scales := [key for key in unused if QUANTISED.search(key)]:
        raise TiltmeterError(
            f"The weights of {name} are quantised in a way that transformers did not undo: {scales[0]} would not be "
            "used; give weights in bfloat16, float16 or float32."
        )
    if unused:
        _log.warning(
            "warning: %d weights of %s are in its files and not in the model (first %s); check that config.json "
            "belongs to them.",
            len(unused),
            name,
            unused[0],
        )
