"""Perturb a language model's activations and measure how far its output moves.

Public names are imported on first use, so that `import tiltmeter` is fast: it does not load torch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiltmeter.analysis.bisection import CrossingTarget
    from tiltmeter.analysis.curves import load as load_curves
    from tiltmeter.analysis.curves import summary
    from tiltmeter.analysis.shape_tables import shape_table
    from tiltmeter.data.token_set import TokenSet, load_tokens
    from tiltmeter.errors import TiltmeterError
    from tiltmeter.models.loading import LoadedModel, load_model
    from tiltmeter.models.own_readouts import at_site
    from tiltmeter.models.positions import BosPolicy, MassivePolicy
    from tiltmeter.models.split_model import SplitModel
    from tiltmeter.perturb.paths import Sphere, Straight, Substitute
    from tiltmeter.reports import plot
    from tiltmeter.runs.versions import versioned
    from tiltmeter.saes.loading import load_dictionary, load_sae
    from tiltmeter.saes.object_options import wrap_sae
    from tiltmeter.saes.sae import SAE
    from tiltmeter.saes.training.config import Training
    from tiltmeter.saes.training.run import train_sae
    from tiltmeter.studies.notebook import claims, report, reproduce
    from tiltmeter.sweeps.compare import compare
    from tiltmeter.sweeps.crossings import Crossings, run_crossings
    from tiltmeter.sweeps.dry_run import dry_run
    from tiltmeter.sweeps.forecast import Forecast
    from tiltmeter.sweeps.plan import Sweep
    from tiltmeter.sweeps.run import run_sweep

__version__ = "0.2.0"

_HOMES = {
    "BosPolicy": "models.positions",
    "MassivePolicy": "models.positions",
    "Crossings": "sweeps.crossings",
    "CrossingTarget": "analysis.bisection",
    "Forecast": "sweeps.forecast",
    "SAE": "saes.sae",
    "LoadedModel": "models.loading",
    "Sphere": "perturb.paths",
    "SplitModel": "models.split_model",
    "Straight": "perturb.paths",
    "Substitute": "perturb.paths",
    "Sweep": "sweeps.plan",
    "TiltmeterError": "errors",
    "TokenSet": "data.token_set",
    "Training": "saes.training.config",
    "claims": "studies.notebook",
    "compare": "sweeps.compare",
    "dry_run": "sweeps.dry_run",
    "at_site": "models.own_readouts",
    "load_curves": "analysis.curves:load",
    "load_dictionary": "saes.loading",
    "load_model": "models.loading",
    "load_sae": "saes.loading",
    "load_tokens": "data.token_set",
    "plot": "reports",
    "report": "studies.notebook",
    "reproduce": "studies.notebook",
    "run_crossings": "sweeps.crossings",
    "run_sweep": "sweeps.run",
    "shape_table": "analysis.shape_tables",
    "summary": "analysis.curves",
    "train_sae": "saes.training.run",
    "versioned": "runs.versions",
    "wrap_sae": "saes.object_options",
}

__all__ = [
    "SAE",
    "BosPolicy",
    "CrossingTarget",
    "Crossings",
    "Forecast",
    "LoadedModel",
    "MassivePolicy",
    "Sphere",
    "SplitModel",
    "Straight",
    "Substitute",
    "Sweep",
    "TiltmeterError",
    "TokenSet",
    "Training",
    "at_site",
    "claims",
    "compare",
    "dry_run",
    "load_curves",
    "load_dictionary",
    "load_model",
    "load_sae",
    "load_tokens",
    "plot",
    "report",
    "reproduce",
    "run_crossings",
    "run_sweep",
    "shape_table",
    "summary",
    "train_sae",
    "versioned",
    "wrap_sae",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tiltmeter' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    with warnings.catch_warnings():
        # tqdm's, in a notebook without ipywidgets: its bars are text there
        warnings.filterwarnings("ignore", message="IProgress not found")
        home = importlib.import_module(f"tiltmeter.{module}")
        if not hasattr(home, attribute or name):
            return importlib.import_module(f"tiltmeter.{module}.{name}")
    return getattr(home, attribute or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
