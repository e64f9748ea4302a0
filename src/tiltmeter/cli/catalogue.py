"""Everything that has a name: models, SAEs, sites, directions, bases, readouts and studies, with what each is."""

from __future__ import annotations

from typing import Any

from tiltmeter.models.model_files import EMBEDDED
from tiltmeter.models.readouts import readout_meanings
from tiltmeter.models.sites import HOOKS
from tiltmeter.perturb.bases import BASES, SAE_BASES
from tiltmeter.perturb.registry import DIRECTIONS, needs_sae
from tiltmeter.saes.loading import list_embedded
from tiltmeter.studies import STUDIES


def sections() -> dict[str, dict[str, str]]:
    """By subject, the names and what they mean."""
    return {
        "models": {name: "comes with tiltmeter" for name in EMBEDDED}
        | {"owner/model": "any causal language model of the Hugging Face hub", "DIR": "a directory of one"},
        "SAEs": {name: _sae(facts) for name, facts in list_embedded().items()}
        | {
            "RELEASE:SAE_ID": "one that SAELens lists, e.g. gpt2-small-res-jb:blocks.6.hook_resid_pre",
            "OWNER/REPO:FOLDER": "one in a repository of the Hugging Face hub (or OWNER/REPO:FILE)",
            "DIR or FILE": "a folder or file of SAELens, sparsify, dictionary_learning and others (docs/saes.md)",
            "DIR#5 or FILE#0": "one layer of a crosscoder or of transcoders, of which only decoder rows are used",
        },
        "sites": {f"blocks.L.{hook}": f"short: {kind}:L" for kind, hook in HOOKS.items()},
        "directions": {name: one.meaning for name, one in DIRECTIONS.items() if not needs_sae(name)}
        | {"blend:W*SOURCE+W*SOURCE": "sum of W (sample - x); sources are real, cov-random, isotropic"}
        | {"along:FILE": "vectors of your own (.npy, .safetensors); along:FILE#3 a row, along:FILE#NAME a tensor"},
        "directions of an SAE (NAME or NAME:SAE)": {
            name: one.meaning for name, one in DIRECTIONS.items() if needs_sae(name)
        },
        "bases (where paths begin)": {name: one.meaning for name, one in BASES.items()}
        | {f"{name}:SAE": one.meaning for name, one in SAE_BASES.items()},
        'readouts (tokens as " Paris" in quotes, yes or #464)': readout_meanings(),
        "studies": {
            name: meaning
            for study in STUDIES.values()
            for name, meaning in [
                (study.name, study.citation),
                *((f"{study.name} --figure {number}", one.title) for number, one in study.figures.items()),
            ]
        },
    }


def _sae(facts: dict[str, Any]) -> str:
    return (
        f"{facts['hook_name']}: L0 {facts['l0']:.1f}, explained variance {facts['explained_variance']:.2f}, "
        f"loss +{facts['ce_increase']:.2f}, {facts['alive']} alive"
    )
