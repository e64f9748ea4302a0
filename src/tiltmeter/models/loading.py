"""Load a model: one that ships with tiltmeter, a directory, or a Hugging Face id, all through the same code."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils.peft_utils import find_adapter_config_file

from tiltmeter.data.token_set import TokenSet, load_tokens
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.accepted import MERGE, refuse_unmeasurable
from tiltmeter.models.exact_model import ExactModel, RoundedModel
from tiltmeter.models.failures import first_line
from tiltmeter.models.fingerprint import model_sha256
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.user_paths import user_path

GGUF = ".gguf"
"""Ending of files with quantised weights, as llama.cpp reads them."""

EMBEDDED: Mapping[str, Path] = {"nano": Path(__file__).parent / "nano"}
"""Models that ship with tiltmeter, by name."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""Names that a model on the Hugging Face hub can have."""

PRECISIONS: Mapping[str, tuple[torch.dtype, type[SplitModel]]] = {
    "float32": (torch.float32, SplitModel),
    "float64": (torch.float64, SplitModel),
    "float32-difference": (torch.float32, ExactModel),
    "bf16-difference": (torch.float32, RoundedModel),
}
"""The dtype of the weights and the class that runs the model, for each precision."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.*", "adapters.safetensors", "*lora*.safetensors")
"""Files of adapters (PEFT, MLX, diffusers), which change a model without being in its weights."""

ADAPTER_WEIGHTS = re.compile(r"(^|[._])(lora|ia3|adapters?|base_layer|vera|loha|lokr|oft|prompt_encoder)([._]|$)", re.I)
"""Names of an adapter's weights among those of a model."""

QUANTISED = re.compile(r"(scales?|scale_inv|zero_?points?|qzeros|qweight|g_idx|absmax|quant_state)(\.|$)", re.I)
"""Ends of names of what quantised weights are multiplied with."""

AUTO = ("float32-difference", "float32")
"""The precisions that `auto` tries, in this order. Both run in float32, equally fast; the first keeps more digits."""


AUTO_DEVICE = "auto"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A split model, its tokenizer, and facts for the manifest."""

    model: SplitModel
    tokenizer: PreTrainedTokenizerBase | None
    """None where the directory has none; token ids can still be measured."""
    facts: dict[str, str]

    def load_tokens(
        self,
        name: str,
        at_most: int | None = None,
        length: int | None = None,
        column: str | None = None,
        revision: str | None = None,
        bos_before: str = "document",
    ) -> TokenSet:
        """Load token sequences that fit this model: `load_tokens` with its tokenizer, vocabulary and context."""
        return load_tokens(
            name,
            tokenizer=self.tokenizer,
            vocabulary=self.model.vocabulary,
            context=self.model.context,
            at_most=at_most,
            length=length,
            column=column,
            revision=revision,
            bos_before=bos_before,
            model_bos=self.model.hf.config.get_text_config().bos_token_id,
        )


def load_model(name: str, revision: str | None = None, device: str = "cpu", precision: str = "auto") -> LoadedModel:
    """Load a causal language model by embedded name, directory, GGUF file or Hugging Face id.

    Weights are read from safetensors, or dequantised from GGUF, and no code from the model's repository is run. The
    device `auto` lets accelerate spread the blocks over the GPUs there are, then memory, then the disk
    (`device_map="auto"`).

    Raises:
        TiltmeterError: no such model, precision or device; no weights; weights that are pickles; an adapter.
    """
    wanted = _precisions(precision)
    if device != AUTO_DEVICE:
        _check_device(device)
    where, gguf = _apart(_locate(name))
    _refuse_revision(name, where, revision)
    if find_adapter_config_file(where, revision=revision):
        raise _adapter_beside(name, "adapter_config.json")
    try:
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False, **gguf)
        hf, loading = _model_class(config).from_pretrained(
            where,
            config=config,
            revision=revision,
            dtype=PRECISIONS[wanted[0]][0],
            use_safetensors=None if gguf else True,
            ignore_mismatched_sizes=True,  # refused below, with a message that names the weights
            trust_remote_code=False,
            output_loading_info=True,
            **gguf,
            **({"device_map": AUTO_DEVICE} if device == AUTO_DEVICE else {}),
        )
    except Exception as error:
        raise TiltmeterError(_explain(name, where, error)) from None
    _check_complete(name, loading)
    if gguf:
        _refuse_unread_gguf(name, hf)
    chosen, model = _split(hf if device == AUTO_DEVICE else hf.to(device), name, wanted)
    commit = str(getattr(config, "_commit_hash", None) or revision or "local")
    return LoadedModel(model, _tokenizer(where, revision, gguf), _facts(model, chosen, device, commit))


def wrap_model(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    name: str = "model",
    precision: str = "auto",
) -> LoadedModel:
    """Take a model that is in memory as it is, edits and hooks included; tiltmeter does not change its weights.

    Args:
        hf: the model, in float32 or float64 throughout.
        tokenizer: needed for text; stored token ids need none.
        name: what results and messages call it.
        precision: as for `load_model`, of those for the type of its weights.

    Raises:
        TiltmeterError: a model that cannot be measured, or not in this precision.
    """
    refuse_unmeasurable(hf, name)
    fitting = [one for one in _precisions(precision, hf.dtype) if PRECISIONS[one][0] == hf.dtype]
    if not fitting:
        raise TiltmeterError(
            f"{name} is in {str(hf.dtype).removeprefix('torch.')}, so it cannot be measured with --precision "
            f"{precision}: convert it with hf.float() or hf.double(), or choose auto."
        )
    chosen, model = _split(hf, name, fitting)
    return LoadedModel(model, tokenizer, _facts(model, chosen, str(hf.device), "in memory"))


def _precisions(precision: str, dtype: torch.dtype = torch.float32) -> tuple[str, ...]:
    """The precisions to try, in this order."""
    if precision == "auto":
        return AUTO if dtype == torch.float32 else ("float64",)
    if precision not in PRECISIONS:
        raise TiltmeterError(f"{precision!r} is not a precision; choose from auto, {', '.join(PRECISIONS)}.")
    return (precision,)


def _facts(model: SplitModel, precision: str, device: str, revision: str) -> dict[str, str]:
    return {
        "name": model.name,
        "class": type(model.hf).__name__,
        "revision": revision,
        "precision": precision,
        "device": device,
        "sha256": model_sha256(model.hf),
    }


def _model_class(config: PretrainedConfig) -> Any:
    """The class that loads the model: the one its configuration names, if transformers has it and it has a head.

    Multimodal models are named there; `AutoModelForCausalLM` knows some of them only by their text half.
    """
    for name in getattr(config, "architectures", None) or ():
        if name in (*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values(), *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
            return getattr(transformers, name, AutoModelForCausalLM)
    return AutoModelForCausalLM


def _split(hf: PreTrainedModel, name: str, precisions: Sequence[str]) -> tuple[str, SplitModel]:
    """The first of these precisions that the model supports, and the model in it."""
    for precision in precisions:
        model = PRECISIONS[precision][1](hf, name)
        obstacle = model.obstacle() if isinstance(model, ExactModel) else None
        if obstacle is None:
            return precision, model
    raise TiltmeterError(f"{name} cannot be measured with --precision {precisions[-1]}: {obstacle}")


def _locate(name: str) -> str:
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
        raise _adapter_beside(name, adapters[0])
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


def _apart(where: str) -> tuple[str, dict[str, str]]:
    """Where transformers looks, and which GGUF file it reads there, if it is one."""
    path = Path(where)
    return (
        (str(path.parent), {"gguf_file": path.name}) if path.suffix.lower() == GGUF and path.is_file() else (where, {})
    )


def _refuse_without_gguf(name: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise TiltmeterError(f"{name} is a GGUF file; the 'gguf' package is needed: pip install 'tiltmeter[gguf]'.")


def _refuse_unread_gguf(name: str, hf: PreTrainedModel) -> None:
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


def _adapter_beside(name: str, file: str) -> TiltmeterError:
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


def _refuse_revision(name: str, where: str, revision: str | None) -> None:
    if revision is not None and Path(where).is_dir():
        raise TiltmeterError(
            f"The revision {revision!r} was asked for but {name!r} is not a model on the hub: leave it out."
        )


def _explain(name: str, where: str, error: Exception) -> str:
    if where == name and not Path(name).is_dir():
        return (
            f"The model {name!r} could not be loaded: it is not an embedded model ({', '.join(EMBEDDED)}), not a "
            f"directory, and the Hugging Face hub returned {first_line(error)}"
        )
    return f"The model in {name} could not be loaded: {first_line(error)}"


def _check_complete(name: str, loading: Mapping[str, Any]) -> None:
    """Refuse weights that do not fill the model, since transformers would draw the rest; and weights of adapters."""
    for problem in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading.get(problem) or ())):
            raise TiltmeterError(
                f"The weights of {name} do not fit its configuration: {len(keys)} {problem.replace('_', ' ')}, first "
                f"{keys[0]}; check that config.json belongs to these weights."
            )
    unused = sorted(map(str, loading.get("unexpected_keys") or ()))
    if adapters := [key for key in unused if ADAPTER_WEIGHTS.search(key)]:
        raise _adapter_beside(name, f"{adapters[0]} among the weights")
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


def _tokenizer(where: str, revision: str | None, gguf: Mapping[str, str]) -> PreTrainedTokenizerBase | None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False, **gguf)
        found = tokenizer.encode("a", add_special_tokens=False)
    except Exception:
        return None
    return tokenizer if found else None  # without tokenizer files, transformers returns one with an empty vocabulary


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device, dtype=torch.float64).item()  # KL is taken in float64; "meta" holds no numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        raise TiltmeterError(f"The device {device!r} cannot be used here: {first_line(error)}") from None
