"""What a run was made from: the part of its identity and record that all kinds of run have."""

from __future__ import annotations

from typing import Any

import torch

from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.loading import LoadedModel
from tiltmeter.runs import run_directory

_NAMES = ("name", "revision")
"""What a model is called decides no number."""


def identity(loaded: LoadedModel, tokens: TokenSet) -> dict[str, Any]:
    """What decides numbers besides the configuration: model, tokens, code, and versions of packages."""
    versions = run_directory.versions()
    return {
        "model": {key: value for key, value in loaded.facts.items() if key not in _NAMES},
        "tokens": {"sha256": tokens.sha256(), "boundary": tokens.boundary},
        "code": run_directory.code_sha256(),
        "versions": {name: versions[name] for name in run_directory.CHANGES_NUMBERS},
    }


def record(loaded: LoadedModel, tokens: TokenSet) -> dict[str, Any]:
    """What a reader wants to know of the same, and of the machine."""
    return {
        "model": {key: loaded.facts[key] for key in _NAMES if key in loaded.facts},
        "tokens": {"name": tokens.name, "shape": list(tokens.ids.shape), **tokens.facts},
        "versions": run_directory.versions(),
        "machine": {**run_directory.machine(), "threads": str(torch.get_num_threads())},
    }
