"""What a run was computed from: the identity and record that all kinds of run share."""

from __future__ import annotations

from typing import Any

import torch

from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.fingerprint import fingerprint
from tiltmeter.models.loading import LoadedModel
from tiltmeter.runs import plugins, run_directory

_NAMES = ("name", "revision")
"""Facts about a model that do not affect any number: equal weights are equal models."""


def identity(loaded: LoadedModel, tokens: TokenSet) -> dict[str, Any]:
    """What determines the numbers besides the configuration: model, tokens, code and package versions.

    The model is identified by what runs now: facts that came with it count only where they say something else.

    Raises:
        TiltmeterError: the model's weights cannot be hashed.
    """
    return {
        "model": {key: value for key, value in loaded.facts.items() if key not in _NAMES} | fingerprint(loaded.model),
        "tokens": {"sha256": tokens.sha256(), "boundary": tokens.boundary},
        **software(),
    }


def software() -> dict[str, Any]:
    """The part of the identity that is known before a model is loaded: code and package versions."""
    versions = run_directory.versions()
    return {
        "code": run_directory.code_sha256(),
        "versions": {name: versions[name] for name in run_directory.CHANGES_NUMBERS} | plugins.versions(),
    }


def record(loaded: LoadedModel, tokens: TokenSet) -> dict[str, Any]:
    """Facts for the reader that do not determine the numbers: names, and the machine."""
    return {
        "model": {key: loaded.facts[key] for key in _NAMES if key in loaded.facts},
        "tokens": {"name": tokens.name, "shape": list(tokens.ids.shape), **tokens.facts},
        "versions": run_directory.versions(),
        "machine": {**run_directory.machine(), "threads": str(torch.get_num_threads())},
    }
