"""Everything that has a name: models, SAEs, sites, directions, bases, readouts, studies and figures.

The names are read from `catalogue.json`, which `scripts/catalogue.py` writes from what defines them: importing that
takes seconds.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tiltmeter.runs import plugins

FILE = Path(__file__).with_name("catalogue.json")

SUBJECTS = ("directions", "readouts", "sites", "saes", "studies", "figures", "models", "bases")
"""What can be listed."""


@cache
def catalogue() -> dict[str, Any]:
    """The names by subject, each with its meaning."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def choices(of: str) -> tuple[str, ...]:
    """The values that an option takes."""
    return tuple(catalogue()["choices"][of])


def subject(name: str) -> dict[str, str]:
    """The names of a subject as a user writes them, and the forms of names that are the user's own."""
    known = catalogue()
    forms = {
        "directions": {f"{kind}:SAE": meaning for kind, meaning in known["sae_directions"].items()}
        | {"KIND@1, KIND@2, ...": "further, independent draws of a random direction"}
        | {"blend:W*SOURCE+W*SOURCE": "sum of W (sample - x); sources are real, cov-random, isotropic"}
        | {"along:FILE": "vectors of your own (.npy, .safetensors); along:FILE#3 a row, along:FILE#NAME a tensor"},
        "bases": {f"{kind}:SAE": meaning for kind, meaning in known["sae_bases"].items()},
        "models": {
            "OWNER/MODEL": "any causal language model of the Hugging Face hub",
            "DIR or FILE.gguf": "a directory of one, or a GGUF file",
        },
        "saes": {
            "RELEASE:SAE_ID": "one that SAELens lists, e.g. gpt2-small-res-jb:blocks.6.hook_resid_pre",
            "OWNER/REPO:FOLDER": "one in a repository of the Hugging Face hub (or OWNER/REPO:FILE)",
            "DIR or FILE": "a folder or file of SAELens, sparsify, dictionary_learning and others (docs/saes.md)",
            "DIR#5 or FILE#0": "one layer of a crosscoder or of transcoders, of which only decoder rows are used",
        },
    }
    return known[name] | forms.get(name, {}) | _added(name)


def _added(subject: str) -> dict[str, str]:
    """The names that other packages add, with the packages; these are not imported."""
    points = plugins.find(f"tiltmeter.{subject}")
    return {name: f"of the package {point.dist.name}" if point.dist else point.value for name, point in points.items()}
