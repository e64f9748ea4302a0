"""Push on a language model's activations and measure how far its output moves.

The public names are imported when they are first used, so that `import tiltmeter` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiltmeter.bisection import Goal
    from tiltmeter.crossings import Crossings, run_crossings
    from tiltmeter.curves import load as load_curves
    from tiltmeter.curves import summary
    from tiltmeter.errors import TiltmeterError
    from tiltmeter.loading import LoadedModel, load_model
    from tiltmeter.model import SplitModel
    from tiltmeter.paths import Sphere, Straight, Substitute
    from tiltmeter.plan import Sweep
    from tiltmeter.positions import BosPolicy
    from tiltmeter.saes.loading import load_sae
    from tiltmeter.saes.sae import SAE
    from tiltmeter.shape_tables import shape_table
    from tiltmeter.sweep import run_sweep
    from tiltmeter.tokens import TokenSet, load_tokens
    from tiltmeter.training.config import Training
    from tiltmeter.training.run import train_sae

__version__ = "0.1.0"

_HOMES = {
    "BosPolicy": "positions",
    "Crossings": "crossings",
    "Goal": "bisection",
    "SAE": "saes.sae",
    "LoadedModel": "loading",
    "Sphere": "paths",
    "SplitModel": "model",
    "Straight": "paths",
    "Substitute": "paths",
    "Sweep": "plan",
    "TiltmeterError": "errors",
    "TokenSet": "tokens",
    "Training": "training.config",
    "load_curves": "curves:load",
    "load_model": "loading",
    "load_sae": "saes.loading",
    "load_tokens": "tokens",
    "run_crossings": "crossings",
    "run_sweep": "sweep",
    "shape_table": "shape_tables",
    "summary": "curves",
    "train_sae": "training.run",
}

__all__ = [
    "SAE",
    "BosPolicy",
    "Crossings",
    "Goal",
    "LoadedModel",
    "Sphere",
    "SplitModel",
    "Straight",
    "Substitute",
    "Sweep",
    "TiltmeterError",
    "TokenSet",
    "Training",
    "load_curves",
    "load_model",
    "load_sae",
    "load_tokens",
    "run_crossings",
    "run_sweep",
    "shape_table",
    "summary",
    "train_sae",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tiltmeter' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"tiltmeter.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
