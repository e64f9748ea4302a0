"""What the files of a model say of its shape."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from tiltmeter.cli.catalogue import catalogue
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.user_paths import user_path

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""Names that a model on the Hugging Face hub can have."""

LAYERS, WIDTH = ("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd")
"""What configurations call the number of layers and the width of the stream."""


class ModelFacts(NamedTuple):
    """The shape of a model, as far as its configuration says it."""

    layers: int | None = None
    width: int | None = None
    """Of the residual stream, and of what is added to it."""


def model_facts(name: str) -> ModelFacts:
    """The shape of an embedded model or of one in a directory; of another, nothing is known.

    Raises:
        TiltmeterError: no model can have this name.
    """
    if name in catalogue()["models"]:
        return _of_configuration(Path(str(files("tiltmeter"))) / "models" / name)
    path = user_path(name)
    if path.is_dir():
        return _of_configuration(path)
    if not path.exists() and not HUB_NAME.fullmatch(name):
        raise TiltmeterError(
            f"There is no model {name!r}: expected {', '.join(catalogue()['models'])}, an existing directory, or "
            "OWNER/NAME of the Hugging Face hub."
        )
    return ModelFacts()


def _of_configuration(folder: Path) -> ModelFacts:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return ModelFacts()
    if not isinstance(config, dict) or "text_config" in config:
        return ModelFacts()
    return ModelFacts(_number(config, LAYERS), _number(config, WIDTH))


def _number(config: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    found = [config[key] for key in keys if isinstance(config.get(key), int)]
    return found[0] if len(found) == 1 else None
