"""Load a model by name (one that ships with tiltmeter, a directory, a Hugging Face id), or take one in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

from tiltmeter.data.token_set import TokenSet, TokensGiven, load_tokens
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.accepted import refuse_unmeasurable
from tiltmeter.models.devices import AUTO_DEVICE, check_device
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
from tiltmeter.models.objects import model_in
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

ModelGiven = Any
"""A model as `load_model` takes it: a name or path, or one of many kinds of objects."""

IN_MEMORY = "model"
"""What results and messages call a model in memory, unless it is given a name."""


@dataclass(frozen=True)
class LoadedModel:
    """A split model, its tokenizer, and facts for the manifest."""

    model: SplitModel
    tokenizer: PreTrainedTokenizerBase | None
    """None where the directory has none; token ids can still be measured."""
    facts: dict[str, str]

    def load_tokens(
        self,
        given: TokensGiven,
        at_most: int | None = None,
        length: int | None = None,
        column: str | None = None,
        revision: str | None = None,
        bos_before: str = "document",
        mask: Any = None,
        documents: Any = None,
        name: str | None = None,
    ) -> TokenSet:
        """Load token sequences that fit this model: `load_tokens` with its tokenizer, vocabulary and context."""
        return load_tokens(
            given,
            tokenizer=self.tokenizer,
            vocabulary=self.model.vocabulary,
            context=self.model.context,
            at_most=at_most,
            length=length,
            column=column,
            revision=revision,
            bos_before=bos_before,
            mask=mask,
            documents=documents,
            name=name,
            model_bos=self.model.hf.config.get_text_config().bos_token_id,
        )


def tokens_for(loaded: LoadedModel, given: TokensGiven, at_most: int | None = None) -> TokenSet:
    """A `TokenSet` as it is; anything else loaded for this model, at most the first `at_most` sequences of it.

    Raises:
        TiltmeterError: as `load_tokens`.
    """
    return given if isinstance(given, TokenSet) else loaded.load_tokens(given, at_most)


def load_model(
    given: ModelGiven,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    revision: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    name: str | None = None,
) -> LoadedModel:
    """Load a causal language model by name, or take one in memory.

    Args:
        given: one of

            - an embedded name (`nano`), a directory, a GGUF file or a Hugging Face id. Weights are read from
              safetensors, or dequantised from GGUF, and no code from the model's repository is run;
            - a `PreTrainedModel` of transformers, in float32 or float64 throughout, which is measured as it is, edits
              and hooks included;
            - a `HookedTransformer` of TransformerLens, whose weights are copied into a model of transformers, or a
              `TransformerBridge`, whose own model of transformers is measured. Both are compared with the object on a
              few tokens;
            - a model of nnsight or nnterp, of which the model inside is measured;
            - a `LoadedModel`, which is returned.
        tokenizer: instead of the model's own. A model in memory without one can be measured on token ids.
        revision: of a Hugging Face id: a branch, tag or commit.
        device: where a model that is loaded by name runs (default: cpu); with `auto`, accelerate spreads the blocks
            over the GPUs there are, then memory, then the disk (`device_map="auto"`).
        precision: `auto`, or one of `PRECISIONS`; of a model in memory, one for the type of its weights.
        name: what results and messages call the model (default: its name, or `model`).

    Raises:
        TiltmeterError: no such model, precision or device; no weights; weights that are pickles; an adapter; an object
            that is no such model, or that computes something else than the model of transformers in it; an argument
            that makes no sense for what is given.
    """
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TiltmeterError(
            f"The tokenizer is a {type(tokenizer).__name__}; expected one of transformers (AutoTokenizer)."
        )
    if isinstance(given, str | os.PathLike):
        return _by_name(os.fspath(given), tokenizer, revision, device or "cpu", precision, name)
    for what, value in (("revision", revision), ("device", device)):
        if value is not None:
            raise TiltmeterError(
                f"The {what} {value!r} was asked for, but the model is in memory already: leave it out, and give the "
                "model as you want it."
            )
    if isinstance(given, LoadedModel):
        return _again(given, tokenizer, precision, name)
    return _in_memory(given, tokenizer, precision, name or IN_MEMORY)


def _by_name(
    given: str,
    tokenizer: PreTrainedTokenizerBase | None,
    revision: str | None,
    device: str,
    precision: str,
    name: str | None,
) -> LoadedModel:
    wanted = _precisions(precision)
    check_device(device)
    where, gguf = directory_and_file(locate(given))
    refuse_revision(given, where, revision)
    if find_adapter_config_file(where, revision=revision):
        raise adapter_beside(given, "adapter_config.json")
    try:
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False, **gguf)
        hf, loading = model_class(config).from_pretrained(
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
        raise TiltmeterError(_explain(given, where, error)) from None
    check_complete(given, loading)
    if gguf:
        refuse_unread_gguf(given, hf)
    elif getattr(config, "quantization_config", None) is None:
        refuse_unscaled(given, where, revision, hf)
    chosen, model = _split(hf if device == AUTO_DEVICE else hf.to(device), name or given, wanted)
    commit = str(getattr(config, "_commit_hash", None) or revision or "local")
    return LoadedModel(model, tokenizer or _tokenizer(where, revision, gguf), _facts(model, chosen, device, commit))


def _again(
    given: LoadedModel, tokenizer: PreTrainedTokenizerBase | None, precision: str, name: str | None
) -> LoadedModel:
    """The same model, with another tokenizer if there is one."""
    if precision != "auto" or name is not None:
        raise TiltmeterError(
            f"{given.model.name} is a LoadedModel, which has its precision and name: leave them out, or give the model "
            "that it was made from."
        )
    return given if tokenizer is None else replace(given, tokenizer=tokenizer)


def _in_memory(given: object, tokenizer: PreTrainedTokenizerBase | None, precision: str, name: str) -> LoadedModel:
    hf, own = model_in(given, name)
    refuse_unmeasurable(hf, name)
    fitting = [one for one in _precisions(precision, hf.dtype) if PRECISIONS[one][0] == hf.dtype]
    if not fitting:
        raise TiltmeterError(
            f"{name} is in {str(hf.dtype).removeprefix('torch.')}, so it cannot be measured with --precision "
            f"{precision}: convert it with hf.float() or hf.double(), or choose auto."
        )
    chosen, model = _split(hf, name, fitting)
    source = "in memory" if hf is given else f"in memory, of a {type(given).__name__}"
    own = own if isinstance(own, PreTrainedTokenizerBase) else None
    return LoadedModel(model, tokenizer or own, _facts(model, chosen, str(hf.device), source))


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


def model_class(config: PretrainedConfig) -> Any:
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
