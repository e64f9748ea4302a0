"""Load a model by name (one that ships with tiltmeter, a directory, a Hugging Face id), or take one in memory."""

from __future__ import annotations

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
from tiltmeter.models.accepted import refuse_unmeasurable
from tiltmeter.models.exact_model import ExactModel, RoundedModel
from tiltmeter.models.failures import first_line
from tiltmeter.models.fingerprint import model_sha256
from tiltmeter.models.model_files import (
    EMBEDDED,
    adapter_beside,
    check_complete,
    directory_and_file,
    locate,
    refuse_revision,
    refuse_unread_gguf,
    refuse_unscaled,
)
from tiltmeter.models.split_model import SplitModel

PRECISIONS: Mapping[str, tuple[torch.dtype, type[SplitModel]]] = {
    "float32": (torch.float32, SplitModel),
    "float64": (torch.float64, SplitModel),
    "float32-difference": (torch.float32, ExactModel),
    "bf16-difference": (torch.float32, RoundedModel),
}
"""The dtype of the weights and the class that runs the model, for each precision."""

AUTO = ("float32-difference", "float32")
"""The precisions that `auto` tries, in this order. Both run in float32, equally fast; the first keeps more digits."""

AUTO_DEVICE = "auto"


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
    where, gguf = directory_and_file(locate(name))
    refuse_revision(name, where, revision)
    if find_adapter_config_file(where, revision=revision):
        raise adapter_beside(name, "adapter_config.json")
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
    check_complete(name, loading)
    if gguf:
        refuse_unread_gguf(name, hf)
    elif getattr(config, "quantization_config", None) is None:
        refuse_unscaled(name, where, revision, hf)
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
            found = getattr(transformers, name, AutoModelForCausalLM)
            if isinstance(config, getattr(found, "config_class", None) or PretrainedConfig):
                return found  # else it is of another family than `model_type`, by which the configuration was read
    return AutoModelForCausalLM


def _split(hf: PreTrainedModel, name: str, precisions: Sequence[str]) -> tuple[str, SplitModel]:
    """The first of these precisions that the model supports, and the model in it."""
    for precision in precisions:
        model = PRECISIONS[precision][1](hf, name)
        obstacle = model.obstacle() if isinstance(model, ExactModel) else None
        if obstacle is None:
            return precision, model
    raise TiltmeterError(f"{name} cannot be measured with --precision {precisions[-1]}: {obstacle}")


def _explain(name: str, where: str, error: Exception) -> str:
    if where == name and not Path(name).is_dir():
        return (
            f"The model {name!r} could not be loaded: it is not an embedded model ({', '.join(EMBEDDED)}), not a "
            f"directory, and the Hugging Face hub returned {first_line(error)}"
        )
    return f"The model in {name} could not be loaded: {first_line(error)}"


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
