"""A model without its weights, from its configuration: which modules it has is known before they are read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import AutoConfig

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import model_class
from tiltmeter.models.model_files import directory_and_file, locate
from tiltmeter.models.module_sites import check_module
from tiltmeter.models.sites import MODULE


def refuse_missing_modules(names: Iterable[str], model: str, revision: str | None = None) -> None:
    """Refuse sites `module:PATH` of modules that a model, which is not loaded yet, does not have.

    Args:
        names: of sites; only those of single modules are looked at, not patterns.
        model: the name of the model, as `load_model` takes it.
        revision: of a Hugging Face id.

    Raises:
        TiltmeterError: there is no such module; the message names the nearest. What the files of the model do not say
            is left to loading it.
    """
    paths = [name.strip().removeprefix(MODULE) for name in names if name.strip().startswith(MODULE) and "*" not in name]
    if paths and (hf := _skeleton(model, revision)) is not None:
        for path in paths:
            check_module(hf, path)


def _skeleton(name: str, revision: str | None) -> nn.Module | None:
    """The model with tensors that have shapes alone; None if it is not known."""
    try:
        where, gguf = directory_and_file(locate(name))
        if gguf:
            return None
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
        kind = model_class(config)
        with torch.device("meta"):
            return getattr(kind, "from_config", kind)(config)
    except TiltmeterError:
        raise
    except Exception:
        return None  # what loads the model says what is wrong with it
