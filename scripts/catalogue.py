"""Write `src/tiltmeter/cli/catalogue.json`: everything that has a name, with what each is.

    python scripts/catalogue.py

The command line lists names and refuses unknown ones by this file, as importing what defines them takes seconds.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from tiltmeter.cli.catalogue import FILE
from tiltmeter.data.cut import BOS_BEFORE
from tiltmeter.data.files import PICKLES, READERS
from tiltmeter.data.nano_text import NANO
from tiltmeter.models.loading import PRECISIONS
from tiltmeter.models.model_files import EMBEDDED
from tiltmeter.models.readouts import readout_meanings
from tiltmeter.models.sites import HOOKS, MODULE, OF_HEADS, OUTSIDE
from tiltmeter.perturb.bases import BASES, SAE_BASES
from tiltmeter.perturb.paths import Unit
from tiltmeter.perturb.registry import DIRECTIONS, kinds
from tiltmeter.perturb.user_vectors import SUFFIXES
from tiltmeter.saes.formats import tensors
from tiltmeter.saes.formats.names import SCHEMES
from tiltmeter.saes.loading import OF_FOLDERS, list_embedded
from tiltmeter.saes.training.config import SAEKind
from tiltmeter.studies import STUDIES
from tiltmeter.studies.columns import CHOICES
from tiltmeter.studies.study import Size


def catalogue() -> dict[str, Any]:
    """By subject, the names and what they mean; under `choices`, the values that options take."""
    return {
        "models": dict.fromkeys(EMBEDDED, "comes with tiltmeter"),
        "saes": {name: _sae(facts) for name, facts in list_embedded().items()},
        "sites": {f"blocks.L.{hook}": f"short: {kind}:L" for kind, hook in HOOKS.items()}
        | {f"blocks.L.{hook}.H": f"of head H; short: {kind}:L.H" for kind, hook in OF_HEADS.items()}
        | {hook: f"short: {kind}" for kind, hook in OUTSIDE.items()}
        | {f"{MODULE}PATH": "the output of a module of the model"},
        "directions": {kind: DIRECTIONS[kind].meaning for kind in kinds().plain},
        "sae_directions": {kind: DIRECTIONS[kind].meaning for kind in kinds().of_saes},
        "bases": {name: one.meaning for name, one in BASES.items()},
        "sae_bases": {name: one.meaning for name, one in SAE_BASES.items()},
        "readouts": readout_meanings(),
        "studies": {study.name: study.citation for study in STUDIES.values()},
        "figures": {
            f"{study.name} --figure {number}": figure.title
            for study in STUDIES.values()
            for number, figure in study.figures.items()
        },
        "choices": {
            "not random": list(kinds().fixed),
            "precision": ["auto", *PRECISIONS],
            "unit": list(get_args(Unit)),
            "kind": list(get_args(SAEKind)),
            "size": list(get_args(Size)),
            "control": list(CHOICES),
            "bos-before": list(BOS_BEFORE),
            "tokens": list(NANO),
            "token files": sorted(READERS),
            "pickles": sorted(PICKLES),
            "vector files": list(SUFFIXES),
            "SAE files": sorted(tensors.SUFFIXES),
            "SAE matrices": sorted({one.names[key] for one in SCHEMES.values() for key in ("W_enc", "W_dec")}),
            "SAE files with a configuration": sorted(OF_FOLDERS),
            "presets": {study.name: list(study.presets) for study in STUDIES.values()},
        },
    }


def text() -> str:
    """The content of the file."""
    return json.dumps(catalogue(), indent=1, ensure_ascii=False) + "\n"


def _sae(facts: dict[str, Any]) -> str:
    return (
        f"{facts['hook_name']}: L0 {facts['l0']:.1f}, explained variance {facts['explained_variance']:.2f}, "
        f"loss +{facts['ce_increase']:.2f}, {facts['alive']} alive"
    )


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
